"""The bytes of requests that a door holds at a time, in all its protocols, and their bound. Pure."""

from __future__ import annotations

from common.errors import Overloaded

_RETRY_MS = 500


class Memory:
    """At most `most` bytes. `held` now."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0


class Holding:
    """One request's share of it, until it is answered."""

    __slots__ = ("_memory", "_size")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._size = 0

    def take(self, size: int) -> None:
        """Hold `size` bytes, if it did not yet. Raises Overloaded."""
        more = size - self._size
        if more <= 0:
            return
        memory = self._memory
        if memory.held + more > memory.most:
            raise Overloaded(
                f"requests of {memory.held} bytes are in memory (bound {memory.most}), {size} more do not fit",
                _RETRY_MS,
            )
        memory.held += more
        self._size = size

    def drop(self) -> None:
        self._memory.held -= self._size
        self._size = 0
