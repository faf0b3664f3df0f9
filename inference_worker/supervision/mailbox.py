"""What other threads and signal handlers tell a loop that waits on file descriptors."""

from __future__ import annotations

import socket
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A queue with a descriptor that is readable while something is in it. `post` is safe from a signal handler."""

    def __init__(self) -> None:
        self._items: SimpleQueue[T] = SimpleQueue()
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)

    def fileno(self) -> int:
        return self._ours.fileno()

    @property
    def wakeup_fd(self) -> int:
        """A byte written here wakes the loop, as `post` does: for signal.set_wakeup_fd."""
        return self._theirs.fileno()

    def post(self, item: T) -> None:
        self._items.put(item)
        # A full socket means that the loop is about to wake, a closed one that it has ended.
        with suppress(OSError):
            self._theirs.send(b"\0")

    def take(self) -> list[T]:
        """All that was posted."""
        with suppress(BlockingIOError):
            self._ours.recv(4096)
        items = []
        with suppress(Empty):
            while True:
                items.append(self._items.get_nowait())
        return items

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()
