"""inference-worker up PATH..."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from common.brokerurl import hide_password
from common.embedded import EmbeddedRedis
from common.keys import DEFAULT_POOL
from common.local import BROKER_VARIABLE, announced
from gateway.access.issuer import Issuer
from gateway.door.settings import Address, DoorSettings
from inference_worker.cli.door import Door, DoorAddress, access_options, token_options
from inference_worker.cli.fetching import Place, fetched, repository_options
from inference_worker.cli.fleet import FleetOptions, plans, supervise
from inference_worker.cli.lines import say
from inference_worker.cli.metrics import folder_of, metrics_option, serving_metrics
from inference_worker.cli.options import fleet_options
from inference_worker.models.repository import models_at
from inference_worker.remote.location import is_url


@click.command("up")
@click.argument("paths", nargs=-1, required=True, type=Place(), metavar="PATH...")
@click.option(
    "--broker", envvar=BROKER_VARIABLE, metavar="URL", help="A broker that is there. [default: an embedded one]"
)
@click.option("--pool", help=f"The pool of models in Python files. [default: {DEFAULT_POOL}]")
@click.option("--http", type=DoorAddress(), help="Answer HTTP there too, as `gateway` does: :8000 (loopback).")
@click.option("--grpc", type=DoorAddress(), help="Answer gRPC there too: :8001 (loopback).")
@access_options
@token_options
@fleet_options
@metrics_option
@repository_options
def command(
    paths: tuple[str, ...],
    broker: str | None,
    pool: str | None,
    http: Address | None,
    grpc: Address | None,
    keys: str | None,
    insecure: bool,
    issuer: Issuer | None,
    metrics: Address | None,
    **fleet: Any,
) -> None:
    """Serve the models under each PATH: a Python file, a model's folder, or a repository of them, here or at a URL.

    Without --broker an embedded Redis is started, on a unix socket in a private directory, and ends
    with this command. `infer` and `status` find it by themselves.

    \b
    Example:
      inference-worker up mymodel.py
      inference-worker up examples/models --device cpu --procs 2
      inference-worker up mymodel.py --http :8000
    """
    options = FleetOptions.of(**fleet)
    fetched(paths)
    pools = pools_of(paths, pool)
    children = plans(pools, options)
    with ExitStack() as stack:
        embedded = None if broker else stack.enter_context(EmbeddedRedis())
        url = embedded.url if embedded else broker or ""
        stack.enter_context(announced(url, _warn))
        say(f"broker {hide_password(url)}; Ctrl-C ends it all", form=options.settings.log_format)
        served = stack.enter_context(serving_metrics(metrics, options.settings.log_format))
        told = replace(options.settings, metrics=folder_of(served))
        if http is None and grpc is None:
            return supervise(url, children, told, embedded, metrics=served)
        only = next(iter(pools)) if len(pools) == 1 else None
        settings = DoorSettings(
            http, url, grpc, pool=only, keys=keys, issuer=issuer, insecure=insecure, notice_s=0.0,
            metrics=told.metrics, log_format=told.log_format, tracing=told.tracing,
        )  # fmt: skip
        door = stack.enter_context(closing(Door(settings, 1)))
        return supervise(url, children, told, embedded, door.run_beside, served)


def _warn(error: OSError) -> None:
    text = f"warning: other commands must name this broker, it cannot be announced: {error}"
    click.secho(text, fg="yellow", err=True)


def pools_of(paths: Iterable[str], pool: str | None) -> Mapping[str, Sequence[str]]:
    """Each pool that a model under `paths` belongs to, with the paths that have models for it.

    A Python file is not imported to find out (it may import torch, and this process starts others):
    its models are those of `pool`.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        declares = is_url(path) or Path(path).is_dir()
        pools = {spec.pool for spec in models_at(path)} if declares else {pool or DEFAULT_POOL}
        for name in sorted(pools):
            found[name].append(path)
    return found
