"""inference-worker gateway --http :8000"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from common.connect import check_url
from gateway.door.limiter import Limits
from gateway.door.settings import Address, DoorSettings
from inference_worker.cli.door import Door, HttpAddress, access_options, body_option, limit_options
from inference_worker.cli.options import FiniteRange, broker_option, ensembles_option, routes_option


@click.command("gateway")
@click.option("--http", type=HttpAddress(), required=True, help="Where to listen: :8000 (loopback), 0.0.0.0:8000.")
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that share the port."
)
@broker_option
@routes_option
@ensembles_option
@access_options
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
@click.option("--cors", multiple=True, metavar="ORIGIN", help="A site whose pages may ask: https://app.example.com.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="warning",
    show_default=True,
)
def command(
    http: Address,
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
    **settings: Any,
) -> None:
    """Answer HTTP: Open Inference Protocol (KServe, Triton), OpenAI's embeddings, and plain JSON.

    Without --keys it listens on loopback addresses only.

    \b
    Example:
      inference-worker gateway --http :8000
      inference-worker keys create acme
      inference-worker gateway --http 0.0.0.0:8000 --keys broker --workers 4
    """
    check_url(broker)
    limits = Limits(total, per_model, per_tenant, queue, patience_s)
    chosen = DoorSettings(
        http,
        broker,
        routes=str(routes.absolute()) if routes else None,
        ensembles=str(ensembles.absolute()) if ensembles else None,
        limits=limits,
        cors=cors,
        **settings,
    )
    with closing(Door(chosen, workers)) as door:
        door.run()
