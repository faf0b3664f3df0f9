"""The batches that a device works on, and when the next one may begin. Pure: no clock, no thread, no device."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf

from inference_worker.item import Batch

#: The host's time to begin a batch counts twice, and at least so much: a device that waits costs more than a batch that
#: went out a little early.
LEAST_LEAD_S = 0.0005
LEAD_WEIGHT = 1 / 8
#: After one that did not fit beside another, so many batches have the device for themselves.
ALONE_FOR = 64


@dataclass(slots=True, eq=False)
class Begun:
    """A batch that was begun at `at_s` and will take about `expected_s`; `beside`: another one was under way too."""

    batch: Batch
    at_s: float
    expected_s: float
    beside: bool


class InFlight:
    """Batches in the order in which they were begun, which is that in which a device works on them.

    The next one begins only just in time to be there when the device is free, since what comes until then may join it.
    """

    def __init__(self) -> None:
        self._begun: deque[Begun] = deque()
        self._landed_s = -inf
        self._lead_s = 0.0
        self._alone = 0

    def __len__(self) -> int:
        return len(self._begun)

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until another batch may begin; None: not before one has landed."""
        if not self._begun:
            return 0.0
        if self._alone or len(self._begun) >= self._begun[0].batch.loaded.backend.depth:
            return None
        return max(0.0, self._free_s() - max(LEAST_LEAD_S, 2 * self._lead_s) - now_s)

    def begin(self, batch: Batch, expected_s: float, at_s: float, now_s: float) -> None:
        """It is on its way at `now_s`, after the host has worked on that since `at_s`."""
        self._lead_s += (now_s - at_s - self._lead_s) * LEAD_WEIGHT
        for one in self._begun:
            one.beside = True
        self._begun.append(Begun(batch, at_s, expected_s, beside=bool(self._begun)))

    def land(self, now_s: float) -> tuple[Begun, float, float]:
        """The oldest, no longer under way; from when on the device had nothing else to do, and for how long."""
        begun = self._begun.popleft()
        since_s = max(begun.at_s, self._landed_s)
        self._landed_s = now_s
        self._alone = max(0, self._alone - 1)
        return begun, since_s, now_s - since_s

    def crowded(self) -> None:
        """A batch did not fit beside another one."""
        self._alone = ALONE_FOR

    @property
    def oldest(self) -> tuple[Batch, float] | None:
        """What the device works on now, and since when."""
        if not self._begun:
            return None
        return self._begun[0].batch, max(self._begun[0].at_s, self._landed_s)

    def _free_s(self) -> float:
        """When the device will have done all that was begun."""
        free_s = self._landed_s
        for one in self._begun:
            free_s = max(free_s, one.at_s) + one.expected_s
        return free_s
