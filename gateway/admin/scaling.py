"""How many workers a pool's load asks for: the signal for whatever adds and removes them. Pure.

    busy     = arrivals × service_s               workers that the requests keep busy as they come (Little's law)
    behind   = backlog × service_s / CATCH_UP_S   workers more that work the backlog off in that time
    desired  = ceil(busy / TARGET + behind)       between the bounds below

`arrivals` is what was finished and what the backlog grew by, per second. `service_s` is a worker's time for a request,
as measured: the seconds in which models ran for each finished request, so that batches count as they are. Where work
stands that no worker has taken, workers are saturated, by whatever it is: then it is what passed, if that is more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.admin.pools import PoolStatus, Rates, Snapshot, count

#: The share of its time that a worker is to be busy: above it queues grow out of proportion, and none may die.
TARGET = 0.7
#: Seconds in which a backlog is to be worked off.
CATCH_UP_S = 30.0
#: Of one reading the answer is at most so many times the workers that serve, or so many where there are fewer.
GROWTH = 4
AT_FIRST = 4


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool's workers have to do. `service_s` is None where it was never measured."""

    backlog: int
    arrivals: float
    service_s: float | None
    workers: int


def desired_workers(load: Load) -> int:
    """0 for a pool that nobody asks; where nothing is known of its requests, one, or as many as there are."""
    if load.backlog == 0 and load.arrivals <= 0:
        return 0
    if load.service_s is None:
        return max(1, load.workers)
    wanted = load.arrivals * load.service_s / TARGET + load.backlog * load.service_s / CATCH_UP_S
    # Sums of floats: three workers' work must not ask for a fourth.
    return max(1, min(math.ceil(wanted - 1e-9), max(AT_FIRST, GROWTH * load.workers)))


def loads(now: Snapshot, before: Snapshot | None, found: Mapping[str, Rates]) -> dict[str, Load]:
    """Each pool's load, by its name; `found` are the rates between the two looks."""
    earlier = {pool.name: pool for pool in before.pools} if before is not None else {}
    return {pool.name: load_of(pool, found.get(pool.name), earlier.get(pool.name)) for pool in now.pools}


def load_of(pool: PoolStatus, rates: Rates | None, before: PoolStatus | None) -> Load:
    """From a pool now and, where there is one, a look at it before, with the rates between the two."""
    backlog = sum(pool.backlog.values())
    if rates is None or before is None:
        return Load(backlog, 0.0, _since_start(pool), pool.serving)
    arrivals = max(0.0, rates.finished + rates.backlog)
    return Load(backlog, arrivals, _service_s(pool, rates, before), pool.serving)


def _service_s(pool: PoolStatus, rates: Rates, before: PoolStatus) -> float | None:
    if rates.finished <= 0:
        return _since_start(pool)
    measured = rates.busy / rates.finished
    if min(_untaken(before), _untaken(pool)) > 0:
        return max(measured, min(before.serving, pool.serving) / rates.finished)
    return measured


def _since_start(pool: PoolStatus) -> float | None:
    """Over the lives of the workers that are there."""
    finished = sum(count(worker, "finished") for worker in pool.workers)
    return sum(count(worker, "busy_s") for worker in pool.workers) / finished if finished else None


def _untaken(pool: PoolStatus) -> int:
    return sum(pool.backlog.values()) - pool.in_flight
