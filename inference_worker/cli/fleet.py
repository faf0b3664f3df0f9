"""From the flags of `up` and `worker` to a supervisor that runs, and its events to lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import click

from common.broker import Broker
from common.errors import ConfigError
from common.logs import setup_logging
from inference_worker.cli.exits import exit_code
from inference_worker.cli.lines import EventLines
from inference_worker.cli.options import answering
from inference_worker.devices import usable_cores, usable_gpus
from inference_worker.events import Event
from inference_worker.placement import place
from inference_worker.slot import ChildPlan
from inference_worker.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """The values of `options.fleet_options`, by the same names."""

    device: str
    procs: int | None
    lease_s: float
    max_deliveries: int
    reply_ttl_s: float
    drain_s: float
    max_backlog: int | None
    log_level: str


def supervise(broker_url: str, children: Sequence[ChildPlan], options: FleetOptions) -> None:
    """Serve what is planned until stopped; lines about what happens go to standard error."""
    setup_logging(options.log_level)
    if options.max_backlog is not None:
        for pool in {plan.pool for plan in children}:
            Broker(answering(broker_url), pool).set_limits(backlog=options.max_backlog)
    lines = EventLines()
    try:
        supervisor(broker_url, children, options, lines).run()
    except ConfigError as error:
        if str(error) not in lines.errors:
            raise
        # A worker's own line has said it.
        raise click.exceptions.Exit(exit_code(error)) from error


def supervisor(
    broker_url: str, children: Sequence[ChildPlan], options: FleetOptions, on_event: Callable[[Event], None]
) -> Supervisor:
    return Supervisor(
        broker_url,
        children,
        on_event,
        lease_ms=int(options.lease_s * 1000),
        max_deliveries=options.max_deliveries,
        reply_ttl_s=options.reply_ttl_s,
        drain_s=options.drain_s,
        log_level=options.log_level,
    )


def plans(pools: Mapping[str, Sequence[str]], options: FleetOptions) -> list[ChildPlan]:
    """The processes that serve `pools`, each with the paths of its models: on each of the devices, cores shared out."""
    cores = usable_cores()
    found: list[ChildPlan] = []
    for number, (pool, paths) in enumerate(sorted(pools.items())):
        ours = cores.ids[len(cores.ids) * number // len(pools) : len(cores.ids) * (number + 1) // len(pools)]
        for placement in place(options.device, options.procs, ours or cores.ids, usable_gpus(os.environ), cores.pin):
            found.append(ChildPlan(pool, tuple(paths), replace(placement, index=len(found)), pool))
    return found
