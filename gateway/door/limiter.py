"""How many requests a door lets in at a time: in all, for each model and for each tenant; the others queue. Pure.

Who queues waits in the lane of his tenant and model. A place that falls free goes round the lanes, so that one
tenant's thousand waiting requests hold up nobody else's first.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from common.errors import Overloaded

#: What a refused caller is told to wait, where nothing is known of how fast places fall free.
RETRY_MS = 250


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests under way; None: no bound. Over `queue` waiting ones the next is refused; each waits `patience_s`."""

    total: int = 1024
    per_model: int | None = None
    per_tenant: int | None = None
    queue: int = 1024
    patience_s: float = 10.0


@dataclass(eq=False, slots=True)
class Place:
    """One request at the door. `admitted` once it may go on."""

    model: str
    tenant: str
    tenant_limit: int | None
    admitted: bool = False


class Limiter:
    """The books. `total` may be moved while it runs."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.total = limits.total
        self.under_way = 0
        self.waiting = 0
        self._models: dict[str, int] = {}
        self._tenants: dict[str, int] = {}
        self._lanes: dict[tuple[str, str], deque[Place]] = {}

    def enter(self, model: str, tenant: str = "", tenant_limit: int | None = None) -> Place:
        """A place, admitted or waiting. Raises Overloaded where the queue is full."""
        limit = self.limits.per_tenant if tenant_limit is None else tenant_limit
        place = Place(model, tenant, limit)
        if self._fits(place) and (tenant, model) not in self._lanes:
            self._admit(place)
            return place
        if self.waiting >= self.limits.queue:
            raise Overloaded(f"{self._why(place)}, and {self.waiting} wait (bound {self.limits.queue})", RETRY_MS)
        self._lanes.setdefault((tenant, model), deque()).append(place)
        self.waiting += 1
        return place

    def leave(self, place: Place) -> list[Place]:
        """It is done, or gives up waiting: those that are let in instead."""
        if not place.admitted:
            self._forget(place)
            return []
        self.under_way -= 1
        _lower(self._models, place.model)
        _lower(self._tenants, place.tenant)
        return self.refill() if self.waiting else []

    def refill(self) -> list[Place]:
        """Let in whoever fits, one of each lane in turn."""
        found: list[Place] = []
        moved = True
        while moved and self.under_way < self.total:
            moved = False
            for key in list(self._lanes):
                lane = self._lanes[key]
                if self._fits(lane[0]):
                    found.append(lane.popleft())
                    self.waiting -= 1
                    self._admit(found[-1])
                    moved = True
                    # Behind the others: it has had its turn.
                    del self._lanes[key]
                    if lane:
                        self._lanes[key] = lane
        return found

    def overdue(self, place: Place) -> Overloaded:
        """Why a request that waited was not let in."""
        return Overloaded(f"{self._why(place)}; it waited {self.limits.patience_s:g} s in vain", RETRY_MS)

    def _fits(self, place: Place) -> bool:
        limits = self.limits
        return (
            self.under_way < self.total
            and (limits.per_model is None or self._models.get(place.model, 0) < limits.per_model)
            and (place.tenant_limit is None or self._tenants.get(place.tenant, 0) < place.tenant_limit)
        )

    def _admit(self, place: Place) -> None:
        place.admitted = True
        self.under_way += 1
        self._models[place.model] = self._models.get(place.model, 0) + 1
        self._tenants[place.tenant] = self._tenants.get(place.tenant, 0) + 1

    def _forget(self, place: Place) -> None:
        key = (place.tenant, place.model)
        lane = self._lanes[key]
        lane.remove(place)
        self.waiting -= 1
        if not lane:
            del self._lanes[key]

    def _why(self, place: Place) -> str:
        of_tenant, of_model = self._tenants.get(place.tenant, 0), self._models.get(place.model, 0)
        if place.tenant_limit is not None and of_tenant >= place.tenant_limit:
            return f"tenant '{place.tenant}' has {of_tenant} requests under way (its limit)"
        if self.limits.per_model is not None and of_model >= self.limits.per_model:
            return f"model '{place.model}' has {of_model} requests under way (its limit)"
        return f"{self.under_way} requests are under way (limit {self.total})"


def _lower(counts: dict[str, int], name: str) -> None:
    left = counts[name] - 1
    if left:
        counts[name] = left
    else:
        del counts[name]
