"""inference-worker health"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import click

from common.connect import connect
from common.errors import BrokerUnavailable
from common.keys import DEFAULT_POOL
from common.text import printable
from gateway.admin.pools import Admin, WorkerStatus
from inference_worker.cli.options import SILENT_S, broker_option
from inference_worker.processes.exitcodes import Exit
from inference_worker.supervision.host import host_name

#: Whoever sets the pool of a container's worker has set it for its probe, too.
WORKER_POOL_VARIABLE = "INFERENCE_WORKER_WORKER_POOL"
READY = "ready"


@click.command("health")
@click.option(
    "--pool",
    envvar=WORKER_POOL_VARIABLE,
    default=DEFAULT_POOL,
    show_default=True,
    help="The pool that this host's `worker` serves.",
)
@click.option("--live", is_flag=True, help="Whether it lives, ready or not; a broker that is away tells nothing of it.")
@broker_option
def command(pool: str, live: bool, broker: str) -> None:
    """Whether this host's worker is ready, by its exit code: 0 for yes. For probes of containers and services.

    It asks the broker, as clients do, for the leases of workers with this host's name. Imports no model.

    \b
    Example:
      inference-worker health --pool gpu-pool-a
      inference-worker health --pool gpu-pool-a --live
    """
    try:
        with closing(connect(broker, SILENT_S)) as client:
            workers = Admin(client).workers(pool)
    except BrokerUnavailable as error:
        if not live:
            raise
        # To end a worker for want of a broker, or for a password that is being changed, would only lose its models.
        click.echo(f"not known: {printable(str(error))}")
        return
    ours = [one for one in workers if one.live and one.about.get("host") == host_name()]
    click.echo(told(ours, pool))
    if not (ours if live else ready(ours)):
        raise click.exceptions.Exit(Exit.FAILED)


def ready(workers: Sequence[WorkerStatus]) -> bool:
    """One is enough: it takes requests. The others may load, or crash, and `status` shows them."""
    return any(one.about.get("state") == READY for one in workers)


def told(workers: Sequence[WorkerStatus], pool: str) -> str:
    """One line for whoever reads a probe's output."""
    if not workers:
        return f"no worker of pool '{pool}' on host '{host_name()}' holds a lease"
    states = [str(one.about.get("state")) for one in workers]
    count = f"{states.count(READY)} of {len(states)} workers of pool '{pool}' on this host are ready"
    others = sorted({state for state in states if state != READY})
    return printable(f"{count}; others: {', '.join(others)}" if others else count)
