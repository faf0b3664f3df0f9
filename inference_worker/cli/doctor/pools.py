"""Checks of the pools: work that nobody takes, workers that do not come up, letters that nobody read. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from common.text import printable
from gateway.admin.pools import PoolStatus, WorkerStatus, count
from inference_worker.cli.doctor.finding import Finding, error, note, warning, well
from inference_worker.supervision.slot import State

#: The oldest request of a pool that keeps up is not older.
OLD_MS = 30_000
#: A supervisor tells of its workers each second: what it last heard is no older.
SILENT_MS = 30_000


def findings(pools: Sequence[PoolStatus], now_ms: int) -> Iterator[Finding]:
    if not pools:
        yield note("pools", "none was ever started on this broker", "", "inference-worker worker --broker URL PATH")
    for pool in pools:
        found = list(_pool(pool, now_ms))
        yield from found or [well(f"pool {pool.name}", f"{pool.serving} workers, backlog {sum(pool.backlog.values())}")]


def _pool(pool: PoolStatus, now_ms: int) -> Iterator[Finding]:
    yield from backlog(pool)
    yield from (one for worker in pool.workers if (one := state(pool, worker, now_ms)))
    yield from versions(pool)
    yield from dead(pool)


def backlog(pool: PoolStatus) -> Iterator[Finding]:
    check, waiting = f"pool {pool.name}", sum(pool.backlog.values())
    if waiting and not pool.serving:
        yield error(
            check,
            f"{waiting} requests wait, and no worker is ready",
            "each ends with its deadline",
            f"inference-worker worker --pool {pool.name} PATH; or, for a mistyped name, `pools forget {pool.name}`",
        )
    elif waiting and (pool.oldest_ms or 0) > OLD_MS:
        yield warning(
            check,
            f"the oldest of {waiting} requests is {(pool.oldest_ms or 0) / 1000:.0f} s old",
            "more comes than its workers do, or one is stuck",
            f"`status --pool {pool.name}` shows rates; add workers, or bound it by `limits set`",
        )


def state(pool: PoolStatus, worker: WorkerStatus, now_ms: int) -> Finding | None:
    check, about = f"worker {worker.name}", worker.about
    if not worker.live:
        return warning(
            check,
            f"its lease ran out {-worker.lease_left_ms / 1000:.0f} s ago",
            f"what it held waits until another worker of pool '{pool.name}' takes over",
            "look at its host and its log; start a worker for that pool",
        )
    last = f": {printable(str(about['error']))}" if about.get("error") else ""
    if about.get("state") in (State.LOOPING.value, State.FENCED.value):
        return error(check, f"{about['state']}{last}", "it serves nothing", "its log on that host says why")
    heard_ms = about.get("heard_ms")
    if isinstance(heard_ms, int) and heard_ms and now_ms - heard_ms > SILENT_MS and about.get("state") == "ready":
        return warning(
            check,
            f"silent for {(now_ms - heard_ms) / 1000:.0f} s, at {about.get('running') or 'nothing'}",
            "native code holds the interpreter, or the process stands still; it is killed after its model's timeout",
            f"inference-worker profile {worker.name}",
        )
    if count(worker, "restarts"):
        return warning(
            check, f"started again {about['restarts']} times{last}", "each time its requests begin anew", "its log"
        )
    return None


def versions(pool: PoolStatus) -> Iterator[Finding]:
    """What workers of one pool serve should be the same: any of them may get any request."""
    serving = [worker for worker in pool.workers if worker.serves]
    offers = sorted(serving, key=lambda worker: sorted(worker.about.get("models", ())))
    kinds = [list(same) for _, same in groupby(offers, key=lambda worker: sorted(worker.about.get("models", ())))]
    if len(kinds) > 1:
        told = "; ".join(f"{same[0].name} has {', '.join(same[0].about.get('models', ())) or 'none'}" for same in kinds)
        yield warning(
            f"pool {pool.name}",
            f"its workers serve different models: {printable(told)}",
            "requests fail that reach one which lacks theirs",
            "give all of them the same paths, or `models load` and `models unload`",
        )


def dead(pool: PoolStatus) -> Iterator[Finding]:
    if pool.dead_letters:
        yield warning(
            f"pool {pool.name}",
            f"{pool.dead_letters} dead letters",
            "requests that killed workers, or that nobody could read",
            f"`inference-worker dead list --pool {pool.name}`; then `dead retry` or `dead purge`",
        )
