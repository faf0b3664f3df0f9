"""inference-worker status"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from gateway.admin import Admin, PoolStatus, Rates, Snapshot, WorkerStatus, rates
from inference_worker.cli.options import answering, broker_option, json_option

#: Workers tell their counts once a second: over less time there are no rates.
LEAST_INTERVAL_S = 1.0


@click.command("status")
@click.option("--pool", "pools", multiple=True, help="Only this pool; several are fine. [default: all of them]")
@click.option("--watch", is_flag=True, help="Again after each interval, until Ctrl-C.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=LEAST_INTERVAL_S),
    default=2.0,
    show_default=True,
    help="Seconds over which rates are taken.",
)
@json_option
@broker_option
def command(pools: tuple[str, ...], watch: bool, interval_s: float, as_json: bool, broker: str) -> None:
    """Show pools, their backlog by priority, workers with their leases, models and rates.

    \b
    Example:
      inference-worker status
      inference-worker status --pool gpu-pool-a --watch
    """
    admin = Admin(answering(broker))
    for before, after in _snapshots(admin, pools, interval_s, watch):
        found = rates(before, after)
        if as_json:
            click.echo(json.dumps({"at_ms": after.at_ms, "pools": [_jsonable(one, found) for one in after.pools]}))
        else:
            click.echo("\n".join(line for one in after.pools for line in lines(one, found.get(one.name))))
        if not after.pools:
            click.echo("no pool was ever started on this broker", err=True)


def lines(pool: PoolStatus, rate: Rates | None) -> Iterator[str]:
    """One pool, as `status` prints it."""
    backlog = ", ".join(f"{priority} {count}" for priority, count in pool.backlog.items())
    oldest = "" if pool.oldest_ms is None else f", oldest {pool.oldest_ms / 1000:.1f} s"
    yield click.style(f"pool {pool.name}", bold=True)
    yield f"  backlog   {backlog}; in flight {pool.in_flight}{oldest}"
    if rate is not None:
        yield f"  rates     {rate.rows:.0f} rows/s in {rate.batches:.1f} batches/s; backlog {rate.backlog:+.0f}/s"
    if pool.tenants:
        yield "  tenants   " + ", ".join(f"{tenant} {count}" for tenant, count in sorted(pool.tenants.items()))
    if pool.dead_letters:
        yield click.style(f"  dead      {pool.dead_letters} letters", fg="red")
    yield "  models    " + (", ".join(f"{one.name}:{one.version}" for one in pool.models) or "none is served")
    for worker in pool.workers:
        yield click.style(f"  worker    {_worker(worker)}", fg=None if worker.live else "red")
    if not pool.workers:
        yield click.style("  worker    none", fg="yellow")


def _worker(worker: WorkerStatus) -> str:
    about = worker.about
    lease = f"lease {worker.lease_left_ms / 1000:.1f} s" if worker.live else "lease has run out"
    done = f"{about.get('rows', 0)} rows in {about.get('batches', 0)} batches"
    busy_ms = about.get("busy_ms", 0)
    busy = f", busy for {busy_ms / 1000:.1f} s" if busy_ms else ""
    return f"{worker.name}  {about.get('device', '?')}  {about.get('state', '?')}{busy}  {lease}  {done}"


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


def _jsonable(pool: PoolStatus, found: dict[str, Rates]) -> dict[str, Any]:
    rate = found.get(pool.name)
    return {**asdict(pool), "rates": None if rate is None else asdict(rate)}
