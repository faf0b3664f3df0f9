"""What is written in one turn of the event loop goes out together at its end.

Each write to a reader who sleeps wakes him, which costs as much as handling the request; of writes that follow each
other at once only the first one does. Answers come in bursts, as the broker's replies do.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Writer(Protocol):
    def flush(self) -> None:
        """Write what has gathered."""
        ...


class Burst:
    """For all connections of one event loop."""

    def __init__(self) -> None:
        self._writers: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """`writer` has something to write; it adds itself once until it is flushed."""
        if not self._writers:
            asyncio.get_running_loop().call_soon(self._flush)
        self._writers.append(writer)

    def _flush(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.flush()
