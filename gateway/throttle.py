"""Requests that a pool refused for now: which of them come again, and when. Pure: time is passed in.

After each refusal one of them tries, later each time, up to 32 times the wait that the pool asked for; where it gets
in, the next one tries sooner, and at last twice as many each time. Beside it each answer lets one come, after a part of
the time that this answer took: a client with work under way goes on at the pool's pace, and leaves some places to those
that have none. So they never come back all at once, nor much more often than there is room (after TCP's congestion
control: slow start, and answers as the clock).
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence

from common.errors import Overloaded
from gateway.flight import Flight

MOST_DOUBLINGS = 5
#: A refusal counts for more than a success, so that most who try get in.
DOUBLINGS_BY_REFUSAL = 2
LONGEST_S = 60.0
#: Of the time that an answer took: the pool stays as full as it need be, with a place free now and then.
PAUSE_PART = 0.25
#: Steps of the golden ratio spread evenly, however many there are.
_STEP = (math.sqrt(5) - 1) / 2


class Throttle:
    """Of one tenant in one pool. Those that were refused first come first."""

    def __init__(self) -> None:
        self._held: deque[Flight] = deque()
        self._turns: list[float] = []  # a heap: when one comes because another was answered
        self._try_at = math.inf  # when one tries whether there is room
        self._tries = 1  # how many then
        self._doublings = 0
        self._wait_s = 0.0
        self._by_time = False  # it is a rate that refuses: time makes room, and answers do not
        self._phase = 0.0

    def __bool__(self) -> bool:
        """Whether it holds any, so that a new one has to stand behind them."""
        return bool(self._held)

    def refused(self, flights: Sequence[Flight], error: Overloaded, now: float, jitter: float) -> None:
        """One call's refused requests; `jitter` (0 to 1) parts the clients that were refused at the same moment."""
        self._held.extendleft(reversed(flights))
        self._wait_s = error.retry_after_ms / 1000
        self._by_time = error.bound == "rate"
        self._phase = jitter
        self._try_at = now + self._pause()
        self._doublings = min(self._doublings + DOUBLINGS_BY_REFUSAL, MOST_DOUBLINGS)
        self._tries = 1

    def stand_behind(self, flight: Flight) -> None:
        """A new one, which would be refused like those before it."""
        self._held.append(flight)

    def leave(self, flight: Flight) -> None:
        """Somebody who does not wait for room wants to know now."""
        self._held.remove(flight)

    def got_in(self, now: float) -> None:
        """Whoever tried found room."""
        if self._doublings:
            self._doublings -= 1
        elif not self._by_time:
            self._tries *= 2
        self._try_at = now + self._pause() if self._by_time or self._doublings else now

    def answered(self, took_s: float, now: float) -> None:
        """One of its requests is done: another may come."""
        if self._held and not self._by_time:
            self._phase = (self._phase + _STEP) % 1
            heapq.heappush(self._turns, now + took_s * PAUSE_PART * self._phase)

    def due(self, now: float) -> list[Flight]:
        """Those that come now."""
        count = 0
        while self._turns and self._turns[0] <= now:
            heapq.heappop(self._turns)
            count += 1
        found = self._next(count)
        if self._held and self._try_at <= now:
            trying = self._next(self._tries)
            for flight in trying:
                flight.trying = True
            found += trying
            self._try_at = now + self._pause()
        return found

    @property
    def due_at(self) -> float:
        """When to look again; infinity where none is held."""
        if not self._held:
            return math.inf
        return min(self._try_at, self._turns[0]) if self._turns else self._try_at

    def _pause(self) -> float:
        # Tokens come one by one: who always got one need not leave any out.
        spread = self._phase if self._doublings or not self._by_time else self._phase / 10
        return min(self._wait_s * (1 << self._doublings), LONGEST_S) * (1 + spread)

    def _next(self, count: int) -> list[Flight]:
        """The first that somebody still waits for."""
        found: list[Flight] = []
        while self._held and len(found) < count:
            flight = self._held.popleft()
            if flight.tickets:
                found.append(flight)
        return found
