"""What is written in one turn of the event loop goes out together at its end.

uvicorn writes an answer's head and body one by one, and uvloop writes each at once. A write to a reader who sleeps
wakes him, which costs as much as handling the request; of writes that follow each other at once only the first one
does. Answers come in bursts, as the broker's replies do.
"""

from __future__ import annotations

import asyncio
from typing import Any

#: More than that is written at once, so that the transport says when it is too much.
_MOST = 64 * 1024


class Burst:
    """For all connections of one event loop."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    def add(self, line: Line) -> None:
        """`line` has something to write; it adds itself once until it is flushed."""
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._flush)
        self._lines.append(line)

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        for line in lines:
            line.flush()


class Line:
    """A transport that writes with the burst; all else is the transport's own."""

    __slots__ = ("_burst", "_pieces", "_size", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, burst: Burst) -> None:
        self._transport = transport
        self._burst = burst
        self._pieces: list[bytes] = []
        self._size = 0
        self.is_closing = transport.is_closing  # asked for each answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._burst.add(self)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _MOST:
            self.flush()

    def flush(self) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces and not self.is_closing():
            self._transport.writelines(pieces)

    def close(self) -> None:
        self.flush()
        self._transport.close()
