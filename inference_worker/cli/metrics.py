"""`--metrics HOST:PORT` of `worker`, `up` and `gateway`: what processes record, served by the command itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.connect import broker_errors, connect
from common.errors import ConfigError
from common.logs import TEXT
from gateway.door.settings import Address
from inference_worker.cli.door import DoorAddress
from inference_worker.cli.lines import say
from inference_worker.supervision.events import Event
from inference_worker.supervision.supervisor import Supervisor

if TYPE_CHECKING:
    from common.metrics.exposition import Exporter

#: A scraper gives up after ten seconds: a Redis that hangs must have been given up before.
PATIENCE_S = 3.0


metrics_option = click.option(
    "--metrics",
    type=DoorAddress(),
    metavar="HOST:PORT",
    help="Serve metrics for Prometheus at /metrics there: :9400 (loopback), 0.0.0.0:9400. [extra: metrics]",
)


class Metrics:
    """What one command serves. Its processes record into files in `folder`."""

    def __init__(self, exporter: Exporter, folder: Path) -> None:
        self._exporter = exporter
        self.folder = str(folder)

    def of_pools(self, broker_url: str, pools: Sequence[str] | None) -> None:
        """What Redis shows of these, or of all pools; from now on."""
        from common.metrics.exposition import Lately
        from gateway.admin.gauges import PoolGauges
        from gateway.admin.pools import Admin

        @cache
        def admin() -> Admin:
            # With the first scrape, not now: a Cluster's client looks for its nodes when it is made.
            with broker_errors():
                return Admin(connect(broker_url, PATIENCE_S))

        self._exporter.add("pools", Lately(PoolGauges(lambda: admin().snapshot(pools))))

    def of_fleet(self, fleet: Supervisor) -> Callable[[Event], None]:
        """What a supervisor and its devices tell; from now on. What must get its events."""
        from common.metrics.exposition import Lately
        from inference_worker.devices.readings import gpu_readings
        from inference_worker.metrics.fleet import FleetMetrics

        placements = [slot.plan.placement for slot in fleet.slots]
        gpus = dict.fromkeys((one.device, one.visible) for one in placements if one.visible)
        found = FleetMetrics(fleet.slots)
        self._exporter.add("processes", found)
        if (readings := gpu_readings(tuple(gpus))) is not None:
            self._exporter.add("devices", Lately(readings))
        return found.hear


def folder_of(metrics: Metrics | None) -> str | None:
    """Where processes record; None: they do not."""
    return None if metrics is None else metrics.folder


@contextmanager
def serving_metrics(address: Address | None, form: str = TEXT) -> Iterator[Metrics | None]:
    """Serve them at `address` until the block ends; None for None. `form` is that of log lines. Raises ConfigError."""
    if address is None:
        yield None
        return
    try:
        from common.metrics.exposition import Exporter, Serving
    except ModuleNotFoundError as error:
        raise ConfigError(
            "--metrics needs the package 'prometheus-client', not installed: pip install 'inference-worker[metrics]'"
        ) from error
    from common.metrics.folder import metrics_folder
    from common.metrics.recorded import Recorded

    exporter = Exporter()
    with ExitStack() as stack:
        try:
            server = stack.enter_context(closing(Serving(exporter, address.host, address.port)))
            folder = stack.enter_context(metrics_folder())
        except OSError as error:
            raise ConfigError(f"metrics cannot be served at {address}: {error.strerror or error}") from error
        exporter.add("recorded", Recorded(folder))
        say(f"http://{Address(address.host, server.port)}/metrics shows metrics", "green", form)
        yield Metrics(exporter, folder)
