"""What a process has to load and to change, and what of it may be done at once. Pure: its owner has the lock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from common.orders import Order
from inference_worker.models.registry import Key


@dataclass(frozen=True, slots=True)
class Wanted:
    """Somebody asked for a model that is not in memory."""

    key: Key


Job = Wanted | Order


class Jobs:
    """In the order in which they came: wanted models beside each other, an operator's order by itself.

    An order looks at what is in memory and changes it in one step, so nothing may come or go meanwhile.
    """

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._under_way = 0
        self._obeying = False

    def add(self, job: Job) -> None:
        self._waiting.append(job)

    @property
    def next_may_begin(self) -> bool:
        if not self._waiting or self._obeying:
            return False
        return isinstance(self._waiting[0], Wanted) or not self._under_way

    def begin(self) -> Job:
        job = self._waiting.popleft()
        self._under_way += 1
        self._obeying = isinstance(job, Order)
        return job

    def done(self) -> None:
        """One that was begun."""
        self._under_way -= 1
        self._obeying = False

    @property
    def under_way(self) -> int:
        return self._under_way
