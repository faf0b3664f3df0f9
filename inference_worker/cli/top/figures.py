"""What `top` shows, from two looks at the pools. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.admin.pools import PoolStatus, Snapshot, WorkerStatus, count

#: A worker tells these again and again, each counted from its start.
_COUNTERS = ("batches", "rows", "finished", "failed", "busy_s", "waited_s")


@dataclass(frozen=True, slots=True)
class Work:
    """What was done between two looks, per second; means in ms, None where no batch ran.

    `busy` is the share of the time in which models ran, of one worker. `wait_ms`: from a batch's first request being
    sent until the batch began; `compute_ms`: the model's time for a batch.
    """

    finished: float = 0.0
    failed: float = 0.0
    rows: float = 0.0
    batches: float = 0.0
    busy: float = 0.0
    wait_ms: float | None = None
    compute_ms: float | None = None

    @property
    def rows_a_batch(self) -> float | None:
        return self.rows / self.batches if self.batches else None


@dataclass(frozen=True, slots=True)
class WorkerLine:
    pool: str
    status: WorkerStatus
    work: Work


@dataclass(frozen=True, slots=True)
class ModelLine:
    """One version of a model in a pool. `loaded` of `workers` have it in memory; `size` in bytes, of one of them."""

    pool: str
    name: str
    version: str
    default: bool
    aliases: tuple[str, ...]
    workers: int
    loaded: int
    size: int


@dataclass(frozen=True, slots=True)
class PoolLine:
    status: PoolStatus
    work: Work


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything, in the order in which it is shown; `left_out` counts the pools that there was no room to read."""

    at_ms: int
    pools: tuple[PoolLine, ...]
    workers: tuple[WorkerLine, ...]
    models: tuple[ModelLine, ...]
    left_out: int = 0


def figures(before: Snapshot, after: Snapshot, left_out: int = 0) -> Figures:
    seconds = (after.at_ms - before.at_ms) / 1000
    earlier = {(pool.name, worker.name): worker for pool in before.pools for worker in pool.workers}
    workers = tuple(
        WorkerLine(pool.name, worker, _work([worker], earlier, pool.name, seconds))
        for pool in after.pools
        for worker in pool.workers
    )
    pools = tuple(PoolLine(pool, _work(pool.workers, earlier, pool.name, seconds)) for pool in after.pools)
    models = tuple(line for pool in after.pools for line in _models(pool))
    return Figures(after.at_ms, pools, workers, models, left_out)


def _work(
    workers: Iterable[WorkerStatus], earlier: Mapping[tuple[str, str], WorkerStatus], pool: str, seconds: float
) -> Work:
    if seconds <= 0:
        return Work()
    there = list(workers)
    gained = {name: sum(_gained(one, earlier.get((pool, one.name)), name) for one in there) for name in _COUNTERS}
    batches = gained["batches"]
    live = max(1, sum(one.live for one in there))
    return Work(
        gained["finished"] / seconds,
        gained["failed"] / seconds,
        gained["rows"] / seconds,
        batches / seconds,
        min(1.0, gained["busy_s"] / seconds / live),
        gained["waited_s"] * 1000 / batches if batches else None,
        gained["busy_s"] * 1000 / batches if batches else None,
    )


def _gained(worker: WorkerStatus, before: WorkerStatus | None, counter: str) -> float:
    """One that was not there before, or was started again, counts from zero."""
    now, then = count(worker, counter), count(before, counter) if before else 0
    return now - then if now >= then else now


def _models(pool: PoolStatus) -> Iterable[ModelLine]:
    serving = [worker for worker in pool.workers if worker.serves]
    for model in pool.models:
        label = f"{model.name}:{model.version}"
        sizes = [size for worker in serving if (size := _in_memory(worker).get(label)) is not None]
        yield ModelLine(
            pool.name,
            model.name,
            model.version,
            model.default,
            tuple(model.aliases),
            sum(label in worker.about.get("models", ()) for worker in serving),
            len(sizes),
            max(sizes, default=0),
        )


def _in_memory(worker: WorkerStatus) -> Mapping[str, Any]:
    told = worker.about.get("in_memory")
    return told if isinstance(told, Mapping) else {}
