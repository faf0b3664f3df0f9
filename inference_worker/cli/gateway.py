"""inference-worker gateway --http :8000 --grpc :8001"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from common.brokerurl import check_url
from common.errors import BrokerUnavailable
from common.logs import LEVELS
from gateway.door.limiter import Limits
from gateway.door.settings import Address, DoorSettings
from inference_worker.cli.door import Door, DoorAddress, access_options, body_option, limit_options, token_options
from inference_worker.cli.lines import say
from inference_worker.cli.metrics import folder_of, metrics_option, serving_metrics
from inference_worker.cli.options import (
    FiniteRange,
    answering,
    broker_option,
    ensembles_option,
    observing_options,
    routes_option,
)


@click.command("gateway")
@click.option("--http", type=DoorAddress(), help="Where to answer HTTP: :8000 (loopback), 0.0.0.0:8000.")
@click.option("--grpc", type=DoorAddress(), help="Where to answer gRPC: :8001 (loopback), 0.0.0.0:8001.")
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that share the port."
)
@broker_option
@routes_option
@ensembles_option
@access_options
@token_options
@limit_options
@body_option
@click.option(
    "--timeout",
    "timeout_s",
    type=FiniteRange(min=0.001),
    default=60.0,
    show_default=True,
    help="Seconds for a request that names no timeout.",
)
@click.option(
    "--notice",
    "notice_s",
    type=FiniteRange(min=0),
    default=2.0,
    show_default=True,
    help="Seconds between SIGTERM, which turns readiness off, and the first connection that is refused.",
)
@click.option(
    "--drain",
    "drain_s",
    type=FiniteRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds for requests under way to end after that; a second SIGTERM ends them at once.",
)
@click.option(
    "--connection-age",
    "connection_age_s",
    type=FiniteRange(min=0.1),
    default=60.0,
    show_default=True,
    help="Seconds until a gRPC client is asked to connect anew, so that clients spread over processes and hosts.",
)
@click.option("--cors", multiple=True, metavar="ORIGIN", help="A site whose pages may ask: https://app.example.com.")
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="warning",
    show_default=True,
    help="What its processes log to standard error.",
)
@observing_options
@metrics_option
def command(
    http: Address | None,
    grpc: Address | None,
    workers: int,
    broker: str,
    routes: Path | None,
    ensembles: Path | None,
    cors: tuple[str, ...],
    total: int,
    per_model: int | None,
    per_tenant: int | None,
    queue: int,
    patience_s: float,
    metrics: Address | None,
    **settings: Any,
) -> None:
    """Answer HTTP (Open Inference Protocol of KServe and Triton, OpenAI's embeddings, plain JSON), gRPC, or both.

    Without --keys it listens on loopback addresses only.

    \b
    Example:
      inference-worker gateway --http :8000 --grpc :8001
      inference-worker keys create acme
      inference-worker gateway --http 0.0.0.0:8000 --keys broker --workers 4
    """
    if http is None and grpc is None:
        raise click.UsageError("name where to listen: --http, --grpc, or both")
    check_url(broker)
    limits = Limits(total, per_model, per_tenant, queue, patience_s)
    chosen = DoorSettings(
        http,
        broker,
        grpc,
        routes=str(routes.absolute()) if routes else None,
        ensembles=str(ensembles.absolute()) if ensembles else None,
        limits=limits,
        cors=cors,
        **settings,
    )
    _greet(broker, chosen.log_format)
    with serving_metrics(metrics, chosen.log_format) as served:
        if served is not None:
            served.of_pools(broker, None)
        with closing(Door(replace(chosen, metrics=folder_of(served)), workers)) as door:
            door.run()


def _greet(broker: str, form: str) -> None:
    """Say where the broker is away: it is waited for. Raises ConfigError where it refuses us, as it will go on to."""
    try:
        answering(broker).close()
    except BrokerUnavailable as away:
        say(f"warning: {away.message}; requests are refused until it answers", "yellow", form)
