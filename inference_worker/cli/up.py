"""inference-worker up PATH..."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from common.connect import hide_password
from common.embedded import EmbeddedRedis
from common.keys import DEFAULT_POOL
from common.local import BROKER_VARIABLE, announced
from inference_worker.cli.fleet import FleetOptions, plans, supervise
from inference_worker.cli.options import fleet_options
from inference_worker.repository import discover


@click.command("up")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True), metavar="PATH...")
@click.option(
    "--broker", envvar=BROKER_VARIABLE, metavar="URL", help="A broker that is there. [default: an embedded one]"
)
@click.option("--pool", help=f"The pool of models in Python files. [default: {DEFAULT_POOL}]")
@fleet_options
def command(paths: tuple[str, ...], broker: str | None, pool: str | None, **fleet: Any) -> None:
    """Serve the models under each PATH: a Python file, a model's folder, or a repository of them.

    Without --broker an embedded Redis is started, on a unix socket in a private directory, and ends
    with this command. `infer` and `status` find it by themselves.

    \b
    Example:
      inference-worker up mymodel.py
      inference-worker up examples/models --device cpu --procs 2
    """
    options = FleetOptions(**fleet)
    children = plans(pools_of(paths, pool), options)
    with ExitStack() as stack:
        url = broker or stack.enter_context(EmbeddedRedis()).url
        stack.enter_context(announced(url, _warn))
        click.secho(f"broker {hide_password(url)}; Ctrl-C ends it all", err=True)
        supervise(url, children, options)


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
        pools = {spec.pool for spec in discover(Path(path))} if Path(path).is_dir() else {pool or DEFAULT_POOL}
        for name in sorted(pools):
            found[name].append(path)
    return found
