"""One timer for all connections: a coarse clock, and a look now and then at who is overdue.

A timer for each request, armed and cancelled, would cost more than all that it guards; what is late here may be late
by one interval more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

#: What is looked at so often is late by a quarter of its bound at most.
_LOOKS = 4
_MOST_S = 1.0


class Watched(Protocol):
    """Whoever waits for something: until `due`, in the sweep's clock; `late` is called once that has passed."""

    due: float

    def late(self) -> None: ...


class Sweep:
    """`now` is the time of the last look. Times in seconds."""

    def __init__(self, slow_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.interval_s = min(_MOST_S, slow_s / _LOOKS)
        # The clock stands still between two looks: without the interval it would be late too soon.
        self.slow_s = slow_s + self.interval_s
        self.watched: set[Watched] = set()
        self._clock = clock
        self.now = clock()

    def look(self) -> None:
        self.now = self._clock()
        for one in [one for one in self.watched if one.due <= self.now]:
            one.late()

    async def keep_looking(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self.interval_s)
            self.look()
