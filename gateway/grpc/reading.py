"""A request's bytes, and its message once it is known who sends it and what it will take. Pure.

What is no message is told by the call, not by a trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from common.errors import InvalidRequest
from gateway.grpc.pb import inference_pb2 as pb
from gateway.grpc.pieces import INFER_REQUEST, Inside, check_pieces

#: Whatever is in it, so small a message takes little.
_SMALL = 16 * 1024
_INSIDE: dict[type[Message], Inside] = {pb.ModelInferRequest: INFER_REQUEST}


class Arrived:
    """A message as it came; `size` in bytes."""

    __slots__ = ("_data", "_found", "_kind", "size")

    def __init__(self, kind: type[Message], data: bytes) -> None:
        self._kind = kind
        self._data = data
        self._found: Message | None = None
        self.size = len(data)

    def message(self) -> Any:
        """Read when it is first asked for. Raises InvalidRequest."""
        if self._found is None:
            if self.size > _SMALL:
                check_pieces(self._data, _INSIDE.get(self._kind, {}))
            self._found = self._read()
            self._data = b""
        return self._found

    def drop(self) -> None:
        """It is answered: nothing of it is held any more."""
        self._data, self._found = b"", None

    def _read(self) -> Message:
        try:
            return self._kind.FromString(self._data)
        except DecodeError as error:
            raise InvalidRequest(f"the message cannot be read as a {self._kind.__name__}: {error}") from None


#: Of a call whose message is not read.
NOTHING = Arrived(pb.ModelInferRequest, b"")


def reader_of(kind: type[Message]) -> Callable[[bytes], Arrived]:
    """What gRPC calls with the bytes of each message of this kind: in its event loop, before anybody is asked for."""

    def read(data: bytes) -> Arrived:
        return Arrived(kind, data)

    return read
