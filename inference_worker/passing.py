"""How long to look for others' requests while one tenant's backlog fills the holding. Pure: time is passed in."""

from __future__ import annotations

from collections.abc import Iterable

from common.keys import is_bulk

#: Of the time for which room was waited for last: what is held must not run out while we look.
PART = 0.5
#: Quicker batches make room by themselves as soon as a read would end.
SHORTEST_S = 0.002
#: A slow batch may be followed by quick ones.
LONGEST_S = 0.02


class Passing:
    """Told each time what was taken and whether there is room, while the intake does nothing else."""

    def __init__(self) -> None:
        self._bulk = False
        self._full_since_s: float | None = None
        self._span_s = 0.0

    def took(self, streams: Iterable[int]) -> None:
        """What was taken last: of these streams."""
        self._bulk = any(map(is_bulk, streams))

    @property
    def wanted(self) -> bool:
        """A tenant with a backlog was among what was taken last, so that others may stand behind it."""
        return self._bulk

    def saw(self, room: int, now_s: float) -> None:
        """There is room for so many rows."""
        if room == 0:
            if self._full_since_s is None:
                self._full_since_s = now_s
        elif self._full_since_s is not None:
            self._span_s = now_s - self._full_since_s
            self._full_since_s = None

    @property
    def look_s(self) -> float:
        """For how long to look; 0 where room comes sooner than a read is worth."""
        seconds = min(self._span_s * PART, LONGEST_S)
        return seconds if seconds >= SHORTEST_S else 0.0
