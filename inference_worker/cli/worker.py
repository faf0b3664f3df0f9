"""inference-worker worker --pool POOL PATH..."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from common.keys import DEFAULT_POOL
from gateway.door.settings import Address
from inference_worker.cli.fetching import Place, fetched, repository_options
from inference_worker.cli.fleet import FleetOptions, plans, supervise
from inference_worker.cli.metrics import folder_of, metrics_option, serving_metrics
from inference_worker.cli.options import broker_option, fleet_options


@click.command("worker")
@click.argument("paths", nargs=-1, required=True, type=Place(), metavar="PATH...")
@click.option("--pool", default=DEFAULT_POOL, show_default=True, help="The pool whose requests to take.")
@broker_option
@fleet_options
@metrics_option
@repository_options
def command(paths: tuple[str, ...], pool: str, broker: str, metrics: Address | None, **fleet: Any) -> None:
    """Serve one pool's models from a broker that is there; run it on as many hosts as you like.

    Of the models under each PATH those of the pool are loaded. SIGTERM and Ctrl-C drain.

    \b
    Example:
      inference-worker worker --broker redis://broker:6379 --pool gpu-pool-a --device cuda /models
    """
    options = FleetOptions.of(**fleet)
    fetched(paths, pool)
    with serving_metrics(metrics, options.settings.log_format) as served:
        settings = replace(options.settings, metrics=folder_of(served))
        supervise(broker, plans({pool: paths}, options), settings, metrics=served)
