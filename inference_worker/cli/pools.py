"""inference-worker pools forget"""

from __future__ import annotations

import click

from gateway.admin.forget import forget
from inference_worker.cli.options import answering, broker_option


@click.group("pools")
def command() -> None:
    """Remove pools that nobody serves any more. `status` shows them all.

    \b
    Example:
      inference-worker pools forget gpu-pool-a
    """


@command.command("forget")
@click.argument("pool")
@click.option("--force", is_flag=True, help="Also where unfinished requests or dead letters are lost by it.")
@broker_option
def forget_pool(pool: str, force: bool, broker: str) -> None:
    """Remove a pool without workers from the broker, with its limits, aliases and splits.

    Refused while a worker lives in it. A worker that is started for it later makes it anew.

    \b
    Example:
      inference-worker pools forget gpu-pool-typo
    """
    found = forget(answering(broker), pool, force)
    click.echo(f"pool '{pool}' is forgotten, with {found.unfinished} requests and {found.letters} dead letters")
