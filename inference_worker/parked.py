"""Entries that wait, in a worker's hands, until their model is loaded: few, so that others find what one cannot run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from common.scripts import Entry
from inference_worker.models.registry import Key

#: While so many wait, nothing more is taken. They are small: a large payload is fetched when it is admitted.
MOST_PARKED = 256


class Parked:
    """Used by whoever takes. `awaits` tells whether those that wait for a model still have to."""

    def __init__(self, awaits: Callable[[Key], bool]) -> None:
        self._awaits = awaits
        self._entries: dict[Key, deque[Entry]] = {}
        self._count = 0

    def add(self, entry: Entry, key: Key) -> None:
        self._entries.setdefault(key, deque()).append(entry)
        self._count += 1

    def take_ready(self) -> list[Entry]:
        """Those that need wait no longer, parked no more; the first come first for each model."""
        ready = [key for key in self._entries if not self._awaits(key)]
        entries = [entry for key in ready for entry in self._entries.pop(key)]
        self._count -= len(entries)
        return entries

    @property
    def room(self) -> int:
        return max(0, MOST_PARKED - self._count)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        for entries in self._entries.values():
            yield from entries
