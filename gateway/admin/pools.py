"""What goes on in the pools, read for `status` and dashboards. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from common.connect import broker_errors, error_kind
from common.errors import AccessDenied, InferenceError, InternalError
from common.keys import GROUP, POOLS, PRIORITIES, RELEASED, PoolKeys, priority_of
from common.memory import Memory, read_memory
from common.scripts import BYTES, models_read, time_read
from common.traffic import Plan, read_plans
from common.wire import unpack_map
from gateway.catalog import Catalog, ModelInfo, read_models

if TYPE_CHECKING:
    import redis


#: The state of a worker that takes work, in its supervisor's words.
SERVES = "ready"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker process with a lease, by its supervisor's words in `about`: host, device, state, rows, ...

    `lease_left_ms` is negative where the lease has run out and nobody has taken its work over yet. `drain_left_ms`,
    None for one that does not drain, is as exact as its host's clock.
    """

    name: str
    lease_left_ms: int
    about: Mapping[str, Any]
    drain_left_ms: int | None = None

    @property
    def live(self) -> bool:
        return self.lease_left_ms > 0

    @property
    def serves(self) -> bool:
        return self.live and self.about.get("state") == SERVES


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """One pool. `backlog` counts unfinished requests by priority, `in_flight` those of them that workers hold.

    `oldest_ms` is the age of the oldest unfinished request, None where there is none. `bytes` counts theirs, where the
    pool has a bound on them. `held` is `in_flight` by priority, `waited_ms` the age of the oldest of each, where there
    is one.
    """

    name: str
    backlog: Mapping[str, int]
    in_flight: int
    oldest_ms: int | None
    tenants: Mapping[str, int]
    bytes: int
    workers: tuple[WorkerStatus, ...]
    models: tuple[ModelInfo, ...]
    traffic: Mapping[str, Plan]
    dead_letters: int
    unloaded: tuple[str, ...] = ()
    held: Mapping[str, int] = field(default_factory=dict)
    waited_ms: Mapping[str, int] = field(default_factory=dict)

    @property
    def serving(self) -> int:
        """Workers that live and take work."""
        return sum(worker.serves for worker in self.workers)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All pools at one time, in milliseconds of Redis's clock. `memory` is None for a user who may not ask."""

    at_ms: int
    pools: tuple[PoolStatus, ...]
    memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """One pool between two snapshots, per second. `backlog` is its growth, negative where it shrinks.

    `failed` counts the requests that workers answered with an error, `finished` all that they answered, and `busy` the
    seconds in which they ran models.
    """

    batches: float
    rows: float
    failed: float
    backlog: float
    finished: float = 0.0
    busy: float = 0.0


class Admin:
    """Reads through one Redis client; safe from many threads. Raises BrokerUnavailable."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def pools(self) -> list[str]:
        """Every pool that was ever started on this broker, by name."""
        with broker_errors():
            return sorted(name.decode() for name in self._redis.execute_command("SMEMBERS", POOLS))

    def snapshot(self, pools: Sequence[str] | None = None) -> Snapshot:
        """These pools, or all of them."""
        names = self.pools() if pools is None else pools
        with broker_errors():
            now_ms = time_read(self._redis.execute_command("TIME"))
        return Snapshot(now_ms, tuple(self._status(name, now_ms) for name in names), self._memory())

    def workers(self, pool: str) -> tuple[WorkerStatus, ...]:
        """One pool's workers that hold or held a lease, by what a worker's own Redis user may read."""
        keys = PoolKeys(pool)
        with broker_errors():
            now_ms = time_read(self._redis.execute_command("TIME"))
        with broker_errors(), self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zrangebyscore(keys.leases, "-inf", "+inf", withscores=True)
            pipeline.execute_command("HGETALL", keys.workers)
            leases, workers = pipeline.execute()
        return tuple(_worker(name, float(until), now_ms, workers) for name, until in _held(leases))

    def _memory(self) -> Memory | None:
        try:
            with broker_errors():
                return read_memory(self._redis.execute_command("INFO", "memory"))
        except (AccessDenied, InternalError):
            return None  # Or a server that has no INFO, such as a proxy.

    def _status(self, pool: str, now_ms: int) -> PoolStatus:
        keys = PoolKeys(pool)
        with broker_errors(), self._redis.pipeline(transaction=False) as pipeline:
            for stream in keys.streams:
                pipeline.execute_command("XLEN", stream)
                pipeline.execute_command("XRANGE", stream, "-", "+", "COUNT", 1)
                pipeline.execute_command("XPENDING", stream, GROUP)
            pipeline.execute_command("HGETALL", keys.tenants)
            pipeline.zrange(keys.leases, 0, -1, withscores=True)
            pipeline.execute_command("HGETALL", keys.workers)
            pipeline.execute_command("HGETALL", keys.models)
            pipeline.execute_command("HGETALL", keys.traffic)
            pipeline.execute_command("XLEN", keys.dead)
            pipeline.execute_command("HGETALL", keys.unloaded)
            answers = pipeline.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and error_kind(answer) != "NOGROUP":
                    raise answer
        *streams, tenants, leases, workers, models, traffic, dead, unloaded = answers
        return pool_status(pool, now_ms, streams, tenants, leases, workers, models, traffic, dead, unloaded)


def pool_status(
    pool: str,
    now_ms: int,
    streams: Sequence[Any],
    tenants: Mapping[bytes, bytes],
    leases: Sequence[tuple[bytes, float]],
    workers: Mapping[bytes, bytes],
    models: Mapping[bytes, bytes],
    traffic: Mapping[bytes, bytes],
    dead: int,
    unloaded: Mapping[bytes, bytes],
) -> PoolStatus:
    """Redis's replies as a status. `streams`: length, first entry and pending summary of each stream."""
    ages = [now_ms - int(first[0][0].partition(b"-")[0]) if first else None for first in streams[1::3]]
    # A pool whose streams somebody deleted has no group until its workers notice: XPENDING is an error then.
    pending = [summary["pending"] if isinstance(summary, Mapping) else 0 for summary in streams[2::3]]
    return PoolStatus(
        pool,
        _by_priority(streams[::3]),
        sum(pending),
        max((age for age in ages if age is not None), default=None),
        {name.decode(errors="replace"): int(count) for name, count in tenants.items() if name != BYTES},
        int(tenants.get(BYTES, 0)),
        tuple(_worker(name, float(until), now_ms, workers) for name, until in _held(leases)),
        tuple(Catalog(read_models(models_read(models))).models),
        read_plans(models_read(traffic)),
        dead,
        tuple(sorted(models_read(unloaded))),
        _by_priority(pending),
        _oldest(ages),
    )


def _oldest(ages: Sequence[int | None]) -> dict[str, int]:
    """The larger one of both lanes."""
    oldest: dict[str, int] = {}
    for stream, age in enumerate(ages):
        if age is not None:
            priority = PRIORITIES[priority_of(stream)]
            oldest[priority] = max(age, oldest.get(priority, 0))
    return oldest


def _by_priority(lengths: Sequence[int]) -> dict[str, int]:
    """Both lanes together."""
    backlog = dict.fromkeys(PRIORITIES, 0)
    for stream, length in enumerate(lengths):
        backlog[PRIORITIES[priority_of(stream)]] += length
    return backlog


def rates(before: Snapshot, after: Snapshot) -> dict[str, Rates]:
    """By pool, for those that are in both; empty where no time lies between."""
    seconds = (after.at_ms - before.at_ms) / 1000
    if seconds <= 0:
        return {}
    earlier = {pool.name: pool for pool in before.pools}
    return {pool.name: _rates(earlier[pool.name], pool, seconds) for pool in after.pools if pool.name in earlier}


def _rates(before: PoolStatus, after: PoolStatus, seconds: float) -> Rates:
    grown = sum(after.backlog.values()) - sum(before.backlog.values())
    counters = ("batches", "rows", "failed", "finished", "busy_s")
    batches, rows, failed, finished, busy = (_gained(counter, before, after) / seconds for counter in counters)
    return Rates(batches, rows, failed, grown / seconds, finished, busy)


def _gained(counter: str, before: PoolStatus, after: PoolStatus) -> float:
    """How far the workers' counters went up; one that is new, or was started again, counts from zero."""
    earlier = {worker.name: count(worker, counter) for worker in before.workers}
    gained = 0.0
    for worker in after.workers:
        now, then = count(worker, counter), earlier.get(worker.name, 0)
        gained += now - then if now >= then else now
    return gained


def count(worker: WorkerStatus, counter: str) -> float:
    """What a worker has counted since its start, as its supervisor says."""
    value = worker.about.get(counter, 0)
    return value if isinstance(value, (int, float)) else 0


def _held(leases: Sequence[tuple[bytes, float]]) -> list[tuple[bytes, float]]:
    """The leases of workers: what was handed back is held by a name that is none."""
    return [(name, until) for name, until in leases if name != RELEASED.encode()]


def _worker(name: bytes, until_ms: float, now_ms: int, descriptions: Mapping[bytes, bytes]) -> WorkerStatus:
    about = _about(descriptions.get(name, b""))
    until = about.get("drains_until_ms")
    drain_left_ms = max(0, until - now_ms) if isinstance(until, int) and until else None
    return WorkerStatus(name.decode(errors="replace"), int(until_ms - now_ms), about, drain_left_ms)


def _about(description: bytes) -> Mapping[str, Any]:
    try:
        return unpack_map("the worker's description", description) if description else {}
    except InferenceError:
        return {}
