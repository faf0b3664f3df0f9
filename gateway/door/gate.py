"""Waits at the limiter, for doors in one event loop. Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from gateway.door.adaptive import AdaptiveLimit
from gateway.door.limiter import Limiter, Limits, Place


class Gate:
    """`adaptive` moves the limiter's total by what it measures; None leaves it where it is."""

    def __init__(self, limits: Limits, adaptive: AdaptiveLimit | None, clock: Callable[[], float]) -> None:
        self.limiter = Limiter(limits)
        self._adaptive = adaptive
        self._clock = clock
        self._waiters: dict[Place, asyncio.Future[None]] = {}
        if adaptive is not None:
            self.limiter.total = adaptive.limit

    async def enter(self, model: str, tenant: str, tenant_limit: int | None, patience_s: float) -> Place:
        """A place to be left by `leave`. Raises Overloaded at once, or after having waited for one in vain."""
        place = self.limiter.enter(model, tenant, tenant_limit)
        if not place.admitted:
            await self._wait(place, min(patience_s, self.limiter.limits.patience_s))
        return place

    def leave(self, place: Place, took_s: float | None = None) -> None:
        """`took_s` of a request that was answered; None tells nothing of how busy those behind are."""
        adaptive = self._adaptive
        if adaptive is not None and took_s is not None and adaptive.finished(took_s, self.limiter.under_way):
            self._follow(adaptive)
        self._wake(self.limiter.leave(place))

    def refused(self) -> None:
        """The broker, or a tenant's bound there, said that it is too much."""
        if self._adaptive is not None:
            self._adaptive.refused()
            self._follow(self._adaptive)

    async def _wait(self, place: Place, patience_s: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[place] = waiter
        try:
            await asyncio.wait([waiter], timeout=patience_s)
        except asyncio.CancelledError:
            # It may have been let in at this very moment.
            self._wake(self.limiter.leave(place))
            raise
        finally:
            del self._waiters[place]
        if not place.admitted:
            overdue = self.limiter.overdue(place)
            self.limiter.leave(place)
            raise overdue

    def _follow(self, adaptive: AdaptiveLimit) -> None:
        self.limiter.total = adaptive.limit
        self._wake(self.limiter.refill())

    def _wake(self, places: Iterable[Place]) -> None:
        for place in places:
            waiter = self._waiters[place]
            if not waiter.done():
                waiter.set_result(None)
