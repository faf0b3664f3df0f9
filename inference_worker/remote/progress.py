"""How far a fetch is, from several threads to one callback."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

#: (the repository as it may be shown, bytes done, bytes in all)
Progress = Callable[[str, int, int], None]


def silent(repository: str, done: int, of: int) -> None:
    """Nobody watches."""


class Meter:
    """Adds up what comes. The callback is called in one thread at a time."""

    def __init__(self, repository: str, total: int, tell: Progress) -> None:
        self._repository = repository
        self._total = total
        self._tell = tell
        self._done = 0
        self._lock = Lock()

    def add(self, count: int) -> None:
        """`count` more bytes are there; fewer, where a file begins again."""
        with self._lock:
            self._done += count
            self._tell(self._repository, self._done, self._total)
