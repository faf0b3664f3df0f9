"""What one process of a door measures where `--metrics` is on: its requests, and how many wait. In its event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

from common.errors import InferenceError, Overloaded
from common.metrics.declared import (
    DOOR_CACHE_HITS,
    DOOR_LIMIT,
    DOOR_MODEL_REQUESTS,
    DOOR_REJECTIONS,
    DOOR_REQUEST,
    DOOR_REQUESTS,
    DOOR_TENANT_REQUESTS,
    DOOR_UNDER_WAY,
    DOOR_WAITING,
    NOBODY,
    OTHER,
    Metric,
)
from common.metrics.recording import Histogram, Number, Recorder
from gateway.door.limiter import Limiter
from gateway.result import Result

#: The bound of a refusal that names none: the door's own.
LIMITER = "limiter"
#: How often the limiter is looked at: it costs a request nothing.
LOOK_S = 1.0


class DoorMeter:
    """Raises ConfigError where there is no room for its file."""

    def __init__(self, path: Path) -> None:
        self._recorder = Recorder(path)
        self._codes: dict[tuple[str, str | int], Number] = {}
        self._durations: dict[str, Histogram] = {}
        self._models: dict[str, tuple[Number, Number]] = {}
        self._tenants: dict[str, Number] = {}
        self._refusals: dict[str, Number] = {}
        self._gauges = [self._recorder.number(one) for one in (DOOR_WAITING, DOOR_UNDER_WAY, DOOR_LIMIT)]

    def request(self, door: str, code: str | int, seconds: float) -> None:
        """A door has answered one with the code of its protocol."""
        number = self._codes.get((door, code))
        if number is None:
            number = self._codes[door, code] = self._recorder.number(DOOR_REQUESTS, door, str(code))
            self._durations[door] = self._recorder.histogram(DOOR_REQUEST, door)
        number.add(1)
        self._durations[door].add([seconds])

    def asked(self, tenant: str | None) -> None:
        """A tenant asks a model."""
        name = tenant or NOBODY
        number = self._tenants.get(name)
        if number is None:
            name = _name(self._tenants, name, DOOR_TENANT_REQUESTS)
            number = self._tenants[name] = self._recorder.number(DOOR_TENANT_REQUESTS, name)
        number.add(1)

    def answered(self, result: Result) -> None:
        """A model, or an earlier answer of it."""
        numbers = self._models.get(result.model)
        if numbers is None:
            name = _name(self._models, result.model, DOOR_MODEL_REQUESTS)
            numbers = self._models[name] = (
                self._recorder.number(DOOR_MODEL_REQUESTS, name),
                self._recorder.number(DOOR_CACHE_HITS, name),
            )
        numbers[0].add(1)
        numbers[1].add(result.cached)

    def failed(self, error: InferenceError) -> None:
        if isinstance(error, Overloaded):
            reason = error.bound or LIMITER
            number = self._refusals.get(reason)
            if number is None:
                number = self._refusals[reason] = self._recorder.number(DOOR_REJECTIONS, reason)
            number.add(1)

    async def keep_looking(self, limiter: Limiter) -> None:
        """Until it is cancelled."""
        while True:
            for gauge, value in zip(self._gauges, (limiter.waiting, limiter.under_way, limiter.total), strict=True):
                gauge.set(value)
            await asyncio.sleep(LOOK_S)


def _name(known: dict[str, Number] | dict[str, tuple[Number, Number]], name: str, metric: Metric) -> str:
    """`name`, or OTHER where as many are known as have a series: names may come from outside."""
    return name if len(known) < metric.most else OTHER
