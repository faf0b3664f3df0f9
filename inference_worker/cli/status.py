"""inference-worker status"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import click

from common.memory import Level, Memory
from common.text import visible
from gateway.admin.backlog import OLDEST, by_model
from gateway.admin.pools import Admin, PoolStatus, Rates, Snapshot, WorkerStatus, rates
from gateway.admin.scaling import desired_workers, loads
from gateway.catalog import Catalog
from inference_worker.cli.options import answering, broker_option, json_option, look_options
from inference_worker.devices.memory import show_bytes


@click.command("status")
@look_options
@click.option("--watch", is_flag=True, help="Again after each interval, until Ctrl-C.")
@click.option(
    "--by-model", "sampled", is_flag=True, help=f"The backlog by model, too, of the oldest {OLDEST} of each stream."
)
@json_option
@broker_option
def command(pools: tuple[str, ...], watch: bool, interval_s: float, sampled: bool, as_json: bool, broker: str) -> None:
    """Show pools, their backlog by priority, workers with their leases, models and rates.

    \b
    Example:
      inference-worker status
      inference-worker status --pool gpu-pool-a --watch
    """
    client = answering(broker)
    admin = Admin(client)
    for before, after in _snapshots(admin, pools, interval_s, watch):
        found = rates(before, after)
        samples = {one.name: by_model(client, one.name) for one in after.pools} if sampled else {}
        wanted = {name: desired_workers(load) for name, load in loads(after, before, found).items()}
        if as_json:
            click.echo(json.dumps(_jsonable(after, found, samples, wanted)))
        else:
            pools_lines = (
                line
                for one in after.pools
                for line in lines(one, found.get(one.name), samples.get(one.name), wanted[one.name])
            )
            click.echo("\n".join((*memory_lines(after.memory), *pools_lines)))
        if not after.pools:
            click.echo("no pool was ever started on this broker", err=True)


def memory_lines(memory: Memory | None) -> Iterator[str]:
    """Nothing where Redis has no limit, or does not tell this user."""
    if memory is not None and memory.limit:
        colour = {Level.NEARLY_FULL: "yellow", Level.FULL: "red"}.get(memory.level)
        yield click.style(f"redis {memory}", fg=colour)


def lines(
    pool: PoolStatus, rate: Rates | None, sample: Mapping[str, int] | None = None, wanted: int | None = None
) -> Iterator[str]:
    """One pool, as `status` prints it; with a `sample` of its backlog by model, and the workers that its load wants."""
    backlog = ", ".join(f"{priority} {count}" for priority, count in pool.backlog.items())
    oldest = "" if pool.oldest_ms is None else f", oldest {pool.oldest_ms / 1000:.1f} s"
    yield click.style(f"pool {pool.name}", bold=True)
    yield f"  backlog   {backlog}; in flight {pool.in_flight}{oldest}"
    if sample:
        models = visible(", ".join(f"{model} {count}" for model, count in sample.items()))
        yield f"            by model (of the oldest {OLDEST} of each stream): {models}"
    if rate is not None:
        yield f"  rates     {rate.rows:.0f} rows/s in {rate.batches:.1f} batches/s; backlog {rate.backlog:+.0f}/s"
        if rate.failed:
            yield click.style(f"  failed    {rate.failed:.1f} requests/s are answered with an error", fg="red")
    if wanted is not None and wanted > pool.serving:
        yield click.style(f"  wants     {wanted} workers, and {pool.serving} serve", fg="yellow")
    if pool.tenants:
        yield "  tenants   " + ", ".join(f"{visible(tenant)} {count}" for tenant, count in sorted(pool.tenants.items()))
    if pool.bytes:
        yield f"  bytes     {pool.bytes:,} of unfinished requests"
    if pool.dead_letters:
        yield click.style(f"  dead      {pool.dead_letters} letters", fg="red")
    yield "  models    " + (", ".join(f"{one.name}:{one.version}" for one in pool.models) or "none is served")
    if pool.unloaded:
        held = visible(", ".join(pool.unloaded))
        yield click.style(f"  unloaded  {held} (held back until `models load`)", fg="yellow")
    for model, plan in sorted(pool.traffic.items()):
        yield f"  traffic   {visible(model)}: {plan}{_unserved(pool, model)}"
    for worker in pool.workers:
        yield click.style(f"  worker    {visible(_worker(worker))}", fg=None if worker.live else "red")
        for more in filter(None, (_batches(worker), _memory(worker))):
            yield f"            {visible(more)}"
        yield from (click.style(f"            {visible(trouble)}", fg="yellow") for trouble in _troubles(worker))
    if not pool.workers:
        yield click.style("  worker    none", fg="yellow")


def _unserved(pool: PoolStatus, model: str) -> str:
    missing = [version for _, version in pool.traffic[model].unserved(Catalog(pool.models).served(model))]
    return f" (not served: {', '.join(dict.fromkeys(missing))})" if missing else ""


def _worker(worker: WorkerStatus) -> str:
    about = worker.about
    lease = f"lease {worker.lease_left_ms / 1000:.1f} s" if worker.live else "lease has run out"
    done = f"{about.get('rows', 0)} rows in {about.get('batches', 0)} batches"
    busy_ms = about.get("busy_ms", 0)
    busy = f", busy with {about.get('running') or '?'} for {busy_ms / 1000:.1f} s" if busy_ms else ""
    left_ms = worker.drain_left_ms
    state = f"{about.get('state', '?')}{'' if left_ms is None else f' for {left_ms / 1000:.0f} s more'}"
    waits = "".join(f", {number} wait for {stage}" for stage, number in sorted(about.get("stages", {}).items()))
    return f"{worker.name}  {about.get('device', '?')}  {state}{busy}  {lease}  {done}{waits}"


def _troubles(worker: WorkerStatus) -> Iterator[str]:
    """What went wrong with a worker since its supervisor started."""
    if failed := worker.about.get("failed"):
        yield f"answered {failed} requests with an error"
    if restarts := worker.about.get("restarts"):
        error = worker.about.get("error")
        yield f"restarts: {restarts}{f', the last time: {error}' if error else ''}"


def _batches(worker: WorkerStatus) -> str:
    """Of a worker's batches: how large, how much of them no padding, and why none was larger."""
    about = worker.about
    count, useful, padded = (about.get(name, 0) for name in ("batches", "useful", "padded"))
    if not count:
        return ""
    filled = f", {useful / padded:.0%} of them no padding" if padded else ""
    reasons = sorted(about.get("reasons", {}).items(), key=lambda reason: -reason[1])
    why = ", ".join(f"{reason} {number}" for reason, number in reasons)
    return f"{about.get('rows', 0) / count:.1f} rows a batch{filled}; sent because: {why}"


def _memory(worker: WorkerStatus) -> str:
    """What its models take, where there may be more of them than fit."""
    about = worker.about
    budget, models, gone = about.get("budget"), about.get("in_memory", {}), about.get("evicted", {})
    if budget is None:
        return ""
    there = ", ".join(f"{name} {show_bytes(size)}" for name, size in models.items())
    evicted = ", ".join(f"{name} {count} time{'' if count == 1 else 's'}" for name, count in gone.items())
    taken = show_bytes(about.get("model_bytes", 0))
    lately = f"; evicted in the last 10 min: {evicted}" if evicted else ""
    return f"memory: {taken} of {show_bytes(budget)} for models: {there or 'none'}{lately}"


def _snapshots(
    admin: Admin, pools: tuple[str, ...], interval_s: float, watch: bool
) -> Iterator[tuple[Snapshot, Snapshot]]:
    before = admin.snapshot(pools or None)
    while True:
        time.sleep(interval_s)
        after = admin.snapshot(pools or None)
        yield before, after
        if not watch:
            return
        before = after


def _jsonable(
    snapshot: Snapshot,
    found: Mapping[str, Rates],
    samples: Mapping[str, Mapping[str, int]],
    wanted: Mapping[str, int],
) -> dict[str, Any]:
    rate_of = {name: asdict(rate) for name, rate in found.items()}
    pools = [
        {
            **asdict(pool),
            "rates": rate_of.get(pool.name),
            "by_model": samples.get(pool.name),
            "desired_workers": wanted[pool.name],
        }
        for pool in snapshot.pools
    ]
    return {**asdict(snapshot), "pools": pools}
