"""A request's bytes to its message, and how many they were; what is none is told by the call, not by a trace. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from common.errors import InvalidRequest

Kind = TypeVar("Kind", bound=Message)


class Arrived(NamedTuple):
    """`found` is the message, or why there is none."""

    found: Any
    size: int

    def message(self) -> Any:
        """Raises InvalidRequest."""
        if isinstance(self.found, InvalidRequest):
            raise self.found
        return self.found


def reader_of(kind: type[Kind]) -> Callable[[bytes], Arrived]:
    """What gRPC calls with the bytes of each message of this kind."""

    def read(data: bytes) -> Arrived:
        try:
            return Arrived(kind.FromString(data), len(data))
        except DecodeError as error:
            return Arrived(InvalidRequest(f"the message cannot be read as a {kind.__name__}: {error}"), len(data))

    return read
