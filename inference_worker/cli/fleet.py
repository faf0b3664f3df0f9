"""From the flags of `up` and `worker` to a supervisor that runs, and its events to lines."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, Self

import click

from common.embedded import EmbeddedRedis
from common.errors import BrokerUnavailable, ConfigError
from common.logs import setup_logging
from inference_worker.cli.exits import exit_code
from inference_worker.cli.lines import EventLines
from inference_worker.devices.cores import usable_cores
from inference_worker.devices.gpus import usable_gpus
from inference_worker.supervision.events import Event
from inference_worker.supervision.placement import place
from inference_worker.supervision.settings import FleetSettings
from inference_worker.supervision.slot import ChildPlan
from inference_worker.supervision.supervisor import Supervisor

if TYPE_CHECKING:
    from inference_worker.cli.metrics import Metrics


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """Where workers run, and how many, and what they are told."""

    device: str
    procs: int | None
    settings: FleetSettings

    @classmethod
    def of(cls, device: str, procs: int | None, **settings: Any) -> Self:
        """From the values of `options.fleet_options`, by the same names."""
        return cls(device, procs, FleetSettings(**settings))


def supervise(
    broker_url: str,
    children: Sequence[ChildPlan],
    settings: FleetSettings,
    embedded: EmbeddedRedis | None = None,
    run: Callable[[Supervisor], None] = Supervisor.run,
    metrics: Metrics | None = None,
) -> None:
    """Serve what is planned until stopped; lines about what happens go to standard error.

    `run` runs the supervisor, with whatever else runs beside it. Raises BrokerUnavailable where the `embedded`
    broker ends meanwhile.
    """
    setup_logging(settings.log_level, form=settings.log_format)
    lines = EventLines(settings.log_format)
    heard: list[Callable[[Event], None]] = [lines]
    fleet = Supervisor(broker_url, children, partial(_tell, heard), settings)
    if metrics is not None:
        metrics.of_pools(broker_url, sorted({child.pool for child in children}))
        heard.append(metrics.of_fleet(fleet))
    if embedded is not None:
        Thread(target=_end_with, args=(embedded, fleet), name="embedded broker", daemon=True).start()
    try:
        run(fleet)
    except ConfigError as error:
        if str(error) not in lines.errors:
            raise
        # A worker's own line has said it.
        raise click.exceptions.Exit(exit_code(error)) from error


def _tell(heard: Sequence[Callable[[Event], None]], event: Event) -> None:
    for listener in heard:
        listener(event)


def _end_with(embedded: EmbeddedRedis, fleet: Supervisor) -> None:
    """What was in its memory is gone: there is nothing to go on with. Once the fleet has ended nobody hears this."""
    code = embedded.wait()
    how = f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with {code}"
    fleet.abort(BrokerUnavailable(f"the embedded Redis has ended {how}, and all requests with it; start again"))


def plans(pools: Mapping[str, Sequence[str]], options: FleetOptions) -> list[ChildPlan]:
    """The processes that serve `pools`, each with the paths of its models: on each of the devices, cores shared out."""
    cores = usable_cores()
    found: list[ChildPlan] = []
    for number, (pool, paths) in enumerate(sorted(pools.items())):
        ours = cores.ids[len(cores.ids) * number // len(pools) : len(cores.ids) * (number + 1) // len(pools)]
        for placement in place(options.device, options.procs, ours or cores.ids, usable_gpus(os.environ), cores.pin):
            found.append(ChildPlan(pool, tuple(paths), replace(placement, index=len(found)), pool))
    return found
