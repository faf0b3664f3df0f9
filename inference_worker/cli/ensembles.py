"""inference-worker ensembles check | list"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.broker import Broker
from common.errors import ConfigError
from common.keys import DEFAULT_POOL
from gateway.catalog import Catalog, catalog_of
from gateway.ensembles.ensemble import Ensemble, Step, mismatches
from gateway.ensembles.file import load_ensembles
from gateway.routefile import load_routes
from gateway.routing import Routes
from inference_worker.cli.options import EXISTING_FILE, answering, broker_option, json_option, routes_option

if TYPE_CHECKING:
    import redis

file_argument = click.argument("file", type=EXISTING_FILE)


@click.group("ensembles")
def command() -> None:
    """Ensembles: models chained into one, as a file declares them.

    \b
    Example:
      inference-worker ensembles list ensembles.toml
    """


@command.command("list")
@file_argument
@json_option
def list_ensembles(file: Path, as_json: bool) -> None:
    """What FILE declares, if it is sound: each ensemble with its inputs, outputs and steps. Asks no broker.

    \b
    Example:
      inference-worker ensembles list ensembles.toml
    """
    found = load_ensembles(file)
    if as_json:
        click.echo(json.dumps([_row(one) for one in found.values()]))
        return
    for one in found.values():
        click.echo(str(one))
        for step in one.steps:
            click.echo(f"  {step.name}: {_model(step)}({', '.join(f'{n}={s}' for n, s in step.inputs.items())})")


@command.command("check")
@file_argument
@click.option("--pool", help=f"The pool of steps that name none, whatever the routes say. [default: {DEFAULT_POOL}]")
@routes_option
@broker_option
def check(file: Path, pool: str | None, routes: Path | None, broker: str) -> None:
    """Check FILE, and each step against the models that its pool's workers serve now: names, dtypes and shapes.

    \b
    Example:
      inference-worker ensembles check ensembles.toml --routes routes.toml
    """
    found = load_ensembles(file)
    rules = load_routes(routes) if routes and not pool else Routes(default=pool or DEFAULT_POOL)
    wrong = 0
    with answering(broker) as client:
        for one in found.values():
            pools = {step.name: step.pool or rules.pool(step.model, step.version) for step in one.steps}
            for problem in _problems(one, pools, {name: _catalog(client, name) for name in set(pools.values())}):
                click.secho(f"{one.name}: {problem}", fg="red", err=True)
                wrong += 1
    if wrong:
        raise ConfigError(f"{file}: {wrong} thing{'s' if wrong > 1 else ''} to mend")
    click.echo(f"{file}: {', '.join(found) or 'no ensemble'}: sound, and served")


def _problems(ensemble: Ensemble, pools: Mapping[str, str], catalogs: Mapping[str, Catalog]) -> Iterator[str]:
    for step, pool in pools.items():
        if not catalogs[pool].models:
            yield f"step '{step}': pool '{pool}' has no worker"
    for step, error in mismatches(ensemble, {step: catalogs[pool] for step, pool in pools.items()}):
        yield f"step '{step}' (pool '{pools[step]}'): {error}"


def _catalog(client: redis.Redis, pool: str) -> Catalog:
    return catalog_of(Broker(client, pool).published())


def _row(ensemble: Ensemble) -> dict[str, object]:
    return {
        "name": ensemble.name,
        "inputs": list(ensemble.inputs),
        "outputs": {name: str(source) for name, source in ensemble.outputs.items()},
        "steps": [
            {
                "name": step.name,
                "model": step.model,
                "version": step.version,
                "pool": step.pool,
                "inputs": {name: str(source) for name, source in step.inputs.items()},
            }
            for step in ensemble.steps
        ],
    }


def _model(step: Step) -> str:
    return step.model if step.version is None else f"{step.model}:{step.version}"
