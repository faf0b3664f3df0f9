"""Request bodies: read within bounds of size, and inflated within the same bound."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from contextlib import suppress

from starlette.types import Receive

from common.errors import InvalidRequest, PayloadTooLarge
from gateway.door.memory import Holding
from gateway.http.status import Refusal

#: zlib finds out whether it is gzip or zlib; HTTP's "deflate" is zlib's format.
_WBITS = {b"gzip": 47, b"x-gzip": 47, b"deflate": 47}


class Gone(Exception):
    """The client went away in the middle of its request: there is nobody to answer."""


class Unread(PayloadTooLarge):
    """It was refused before all of it had come: closing now would reset the connection, and destroy the answer."""


async def drop(receive: Receive) -> None:
    """Read the rest of a body that nobody wants, while it comes in time."""
    with suppress(TimeoutError):
        while (await receive()).get("more_body"):
            pass


class Bodies:
    """The bound of one body; how long it may take the connection knows."""

    def __init__(self, most: int) -> None:
        self._most = most

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive, holding: Holding) -> bytes:
        """The whole body. Raises PayloadTooLarge, Overloaded, InvalidRequest, Refusal (408, 415) and Gone."""
        declared = _declared(headers.get(b"content-length"))
        self._check(declared, Unread)
        holding.take(declared)
        try:
            data = await self._received(receive, holding)
        except TimeoutError:
            raise Refusal(408, "the body did not come in time: send it faster, or in smaller requests") from None
        encoding = headers.get(b"content-encoding", b"identity").lower()
        return data if encoding == b"identity" else self._inflated(data, encoding, holding)

    async def _received(self, receive: Receive, holding: Holding) -> bytes:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            whole: bytes = message.get("body", b"")
            self._check(len(whole))
            holding.take(len(whole))
            return whole
        chunks: list[bytes] = []
        size = 0
        while message["type"] == "http.request":
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            self._check(size, Unread if message.get("more_body") else PayloadTooLarge)
            holding.take(size)
            if not message.get("more_body"):
                return b"".join(chunks)
            message = await receive()
        raise Gone

    def _check(self, size: int, error: type[PayloadTooLarge] = PayloadTooLarge) -> None:
        if size > self._most:
            raise error(f"a body must have at most {self._most} bytes; got {size}")

    def _inflated(self, data: bytes, encoding: bytes, holding: Holding) -> bytes:
        wbits = _WBITS.get(encoding)
        if wbits is None:
            raise Refusal(415, f"Content-Encoding must be gzip, deflate or identity; got {encoding.decode('latin-1')}")
        inflater = zlib.decompressobj(wbits)
        try:
            # One byte more than is allowed tells that there is more; a bomb is never unpacked.
            found = inflater.decompress(data, self._most + 1)
        except zlib.error as error:
            raise InvalidRequest(f"the body is not valid {encoding.decode()}: {error}") from None
        if len(found) > self._most:
            raise PayloadTooLarge(f"a body must have at most {self._most} bytes once it is inflated; got more")
        if not inflater.eof:
            raise InvalidRequest(f"the body's {encoding.decode()} ends too soon")
        holding.take(len(data) + len(found))
        return found


def _declared(length: bytes | None) -> int:
    """What Content-Length says; the server has checked that it is a number."""
    return int(length) if length is not None and length.isdigit() else 0
