"""Pools as metrics: what Redis shows of them, read when somebody scrapes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator

from common.errors import AccessDenied, BrokerUnavailable, InferenceError
from common.keys import PRIORITIES
from common.metrics.declared import (
    ARRIVALS,
    BACKLOG,
    DESIRED,
    IN_FLIGHT,
    LETTERS,
    OLDEST,
    REDIS_LIMIT,
    REDIS_UP,
    REDIS_USED,
    SERVICE,
    TENANT_BACKLOG,
    WORKERS,
    Sample,
    sample,
)
from common.metrics.top import top
from gateway.admin.pools import PoolStatus, Rates, Snapshot, rates
from gateway.admin.scaling import Load, desired_workers, loads

log = logging.getLogger(__name__)

#: Rates are taken over so long.
WINDOW_S = 60.0
#: However many scrape, no more readings are kept than one in so long.
APART_S = 5.0
#: A broker may hold any number of pools: of more than so many the first by name are shown.
MOST_POOLS = 100


class PoolGauges:
    """A source of samples, for one thread at a time.

    `read` raises InferenceError where Redis does not answer, or not to this user.
    """

    def __init__(self, read: Callable[[], Snapshot]) -> None:
        self._read = read
        self._earlier: deque[Snapshot] = deque()
        self._denied = False

    def __call__(self) -> list[Sample]:
        try:
            now = self._read()
        except AccessDenied as error:
            self._say_denied(error)
            return []
        except BrokerUnavailable:
            return [sample(REDIS_UP, 0)]
        self._denied = False
        return list(samples(now, self._before(now)))

    def _before(self, now: Snapshot) -> Snapshot | None:
        """The oldest within the window, or the last one before it."""
        earlier = self._earlier
        if earlier and earlier[-1].at_ms > now.at_ms:
            earlier.clear()  # Another server, whose clock is behind.
        while len(earlier) > 1 and earlier[1].at_ms <= now.at_ms - WINDOW_S * 1000:
            earlier.popleft()
        before = earlier[0] if earlier else None
        if not earlier or now.at_ms - earlier[-1].at_ms >= APART_S * 1000:
            earlier.append(now)
        return before

    def _say_denied(self, error: InferenceError) -> None:
        if not self._denied:
            log.warning("the metrics of pools are left out, as this Redis user may not look at them: %s", error)
        self._denied = True


def samples(now: Snapshot, before: Snapshot | None) -> Iterator[Sample]:
    """What a snapshot says; with one from `before` also what lies between."""
    yield sample(REDIS_UP, 1)
    if now.memory is not None:
        yield sample(REDIS_USED, now.memory.used)
        yield sample(REDIS_LIMIT, now.memory.limit)
    found = rates(before, now) if before is not None else {}
    load = loads(now, before, found)
    for pool in now.pools[:MOST_POOLS]:
        yield from _pool(pool)
        yield from _load(pool.name, load[pool.name], found.get(pool.name))


def _pool(pool: PoolStatus) -> Iterator[Sample]:
    for priority in PRIORITIES:
        yield sample(BACKLOG, pool.backlog.get(priority, 0), pool.name, priority)
        yield sample(IN_FLIGHT, pool.held.get(priority, 0), pool.name, priority)
        yield sample(OLDEST, pool.waited_ms.get(priority, 0) / 1000, pool.name, priority)
    yield sample(WORKERS, pool.serving, pool.name)
    yield sample(LETTERS, pool.dead_letters, pool.name)
    for tenant, unfinished in top(pool.tenants).items():
        yield sample(TENANT_BACKLOG, unfinished, pool.name, tenant)


def _load(pool: str, load: Load, rate: Rates | None) -> Iterator[Sample]:
    yield sample(DESIRED, desired_workers(load), pool)
    if rate is not None:
        yield sample(ARRIVALS, load.arrivals, pool)
    if load.service_s is not None:
        yield sample(SERVICE, load.service_s, pool)
