"""Request bodies: read within bounds of size and time, and inflated within the same bound."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping

from starlette.types import Receive

from common.errors import InvalidRequest, Overloaded, PayloadTooLarge
from gateway.http.status import Refusal

#: zlib finds out whether it is gzip or zlib; HTTP's "deflate" is zlib's format.
_WBITS = {b"gzip": 47, b"x-gzip": 47, b"deflate": 47}
_RETRY_MS = 500


class Gone(Exception):
    """The client went away in the middle of its request: there is nobody to answer."""


class Bodies:
    """The bounds of one body, of all that are in memory at a time, and of the time that one may take to come."""

    def __init__(self, most: int, most_in_all: int, slow_s: float) -> None:
        self._most = most
        self.most_in_all = most_in_all
        self._slow_s = slow_s
        self.held = 0

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive, holding: Holding) -> bytes:
        """The whole body. Raises PayloadTooLarge, Overloaded, InvalidRequest, Refusal (408, 415) and Gone."""
        declared = _declared(headers.get(b"content-length"))
        self._check(declared)
        holding.take(declared)
        try:
            async with asyncio.timeout(self._slow_s):
                data = await self._received(receive, holding)
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {self._slow_s:g} s") from None
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
            self._check(size)
            holding.take(size)
            if not message.get("more_body"):
                return b"".join(chunks)
            message = await receive()
        raise Gone

    def _check(self, size: int) -> None:
        if size > self._most:
            raise PayloadTooLarge(f"a body must have at most {self._most} bytes; got {size}")

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


class Holding:
    """One request's share of the memory for bodies, until it is answered."""

    __slots__ = ("_bodies", "_size")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._size = 0

    def take(self, size: int) -> None:
        """Hold `size` bytes, if it did not yet. Raises Overloaded."""
        more = size - self._size
        if more <= 0:
            return
        bodies = self._bodies
        if bodies.held + more > bodies.most_in_all:
            raise Overloaded(
                f"requests of {bodies.held} bytes are in memory (bound {bodies.most_in_all}), {size} more do not fit",
                _RETRY_MS,
            )
        bodies.held += more
        self._size = size

    def drop(self) -> None:
        self._bodies.held -= self._size
        self._size = 0


def _declared(length: bytes | None) -> int:
    """What Content-Length says; the server has checked that it is a number."""
    return int(length) if length is not None and length.isdigit() else 0
