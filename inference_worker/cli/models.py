"""inference-worker models list | check; alias | split are in traffic.py, fetch | index | cache in repository.py"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from common.text import visible
from common.traffic import Plan
from inference_worker.backends import open_model
from inference_worker.cli.fetching import Place, fetch_models, repository_options
from inference_worker.cli.manage import load, reload, unload
from inference_worker.cli.options import FiniteRange, answering, broker_option, json_option
from inference_worker.cli.repository import cache, fetch, index
from inference_worker.cli.traffic import alias, labels, share, split
from inference_worker.cli.tune import print_tuning
from inference_worker.models.registry import Loaded
from inference_worker.models.repository import models_at
from inference_worker.models.sample import full_batch, run_sample
from inference_worker.models.spec import MAX_ROWS, ModelSpec, TensorSpec

if TYPE_CHECKING:
    from gateway.admin.pools import PoolStatus
    from gateway.catalog import Declared, ModelInfo


@click.group("models")
def command() -> None:
    """List the models that a broker's workers serve, or load some here and check them, or fetch them from a URL.

    \b
    Example:
      inference-worker models check examples/models
      inference-worker models list
    """


command.add_command(load)
command.add_command(unload)
command.add_command(reload)
command.add_command(alias)
command.add_command(split)
command.add_command(fetch)
command.add_command(index)
command.add_command(cache)


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found of one model: seconds, and MiB of this process's memory that it took at its peak."""

    model: str
    load_s: float
    first_run_ms: float
    run_ms: float
    full_batch_ms: float
    rows: int
    memory_mib: float
    outputs: dict[str, str]


@command.command("check")
@click.argument("path", type=Place())
@click.option("--model", "name", help="Only this one of the models there.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda:N.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="CPU threads.")
@click.option("--tune", "tuned", is_flag=True, help="Measure runtime options and batch sizes, and propose the best.")
@click.option(
    "--rows", "sizes", type=click.IntRange(1, MAX_ROWS), multiple=True, help="With --tune: a batch size; repeat it."
)
@click.option(
    "--seconds", type=FiniteRange(min=0.1), default=30.0, show_default=True, help="With --tune: for each model."
)
@json_option
@repository_options
def check(
    path: str,
    name: str | None,
    device: str,
    threads: int,
    tuned: bool,
    sizes: tuple[int, ...],
    seconds: float,
    as_json: bool,
) -> None:
    """Load each model under PATH, run its sample through all of its stages, and print times and memory.

    With --tune, latency, throughput and difference from float32 of each runtime option at each batch size.

    \b
    Example:
      inference-worker models check examples/models/sentiment
      inference-worker models check examples/models/minilm --tune --threads 2
    """
    chosen = _chosen(path, name)
    fetch_models(chosen)
    for spec in chosen:
        if tuned:
            print_tuning(spec, device, threads, sizes, seconds, as_json)
            continue
        found = check_model(spec, device, threads)
        click.echo(json.dumps(asdict(found)) if as_json else _line(found))


def check_model(spec: ModelSpec, device: str, threads: int) -> Checked:
    """Raises ConfigError or ModelError where the model does not load, or its sample does not run."""
    memory, started = _peak_mib(), time.perf_counter()
    loaded = Loaded(spec, open_model(spec, device, threads))
    load_s = time.perf_counter() - started
    first_ms, outputs = _timed(loaded, 1)
    run_ms, _ = _timed(loaded, 1)
    rows = full_batch(loaded)
    batch_ms, _ = _timed(loaded, rows)
    loaded.close()
    shapes = {one: f"{array.dtype}{list(array.shape[1:])}" for one, array in outputs.items()}
    model = f"{spec.name}:{spec.version}"
    return Checked(model, load_s, first_ms, run_ms, batch_ms, rows, _peak_mib() - memory, shapes)


@command.command("list")
@click.argument("path", required=False, type=Place())
@json_option
@broker_option
@repository_options
def list_models(path: str | None, as_json: bool, broker: str) -> None:
    """The models that workers serve now, or, with PATH, those that are declared there.

    \b
    Example:
      inference-worker models list
      inference-worker models list examples/models --json
    """
    pools = () if path else pools_of(broker)
    rows = declared(path) if path else served(pools)
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        takes, gives = ", ".join(row["inputs"]) or "any inputs", ", ".join(row["outputs"]) or "any outputs"
        aliases = f" ({', '.join(row['aliases'])})" if row["aliases"] else ""
        part = f"  {100 * row['share']:.4g} %" if "share" in row else ""
        click.echo(f"{row['name']}:{row['version']}{aliases}{part}  pool {row['pool']}  ({takes}) -> ({gives})")
    for held in pools:
        if held.unloaded:
            names = visible(", ".join(held.unloaded))
            click.echo(f"unloaded in pool {held.name}, and held back until `models load`: {names}", err=True)
    if not rows:
        click.echo("no models", err=True)


def declared(path: str) -> list[dict[str, Any]]:
    return [_row(spec, spec.pool) for spec in models_at(path)]


def pools_of(broker: str) -> tuple[PoolStatus, ...]:
    from gateway.admin.pools import Admin

    return Admin(answering(broker)).snapshot().pools


def served(pools: Iterable[PoolStatus]) -> list[dict[str, Any]]:
    return [_served_row(model, pool) for pool in pools for model in pool.models]


def _served_row(model: ModelInfo, pool: PoolStatus) -> dict[str, Any]:
    """With its aliases of now, and, where a split holds, the part of the requests that it answers."""
    row = {**_row(model, pool.name), "aliases": labels(model, pool.traffic.get(model.name, Plan()))}
    part = share(model, pool)
    return row if part is None else {**row, "share": part}


def _row(model: ModelSpec | ModelInfo, pool: str) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "aliases": list(model.aliases),
        "pool": pool,
        "inputs": [_form(one) for one in model.inputs],
        "outputs": [_form(one) for one in model.outputs],
    }


def _form(tensor: TensorSpec | Declared) -> str:
    return f"{tensor.name}: {tensor.dtype}{list(tensor.shape)}"


def _chosen(path: str, name: str | None) -> list[ModelSpec]:
    specs = models_at(path)
    chosen = [spec for spec in specs if name in (None, spec.name)]
    if not chosen:
        there = ", ".join(dict.fromkeys(spec.name for spec in specs))
        raise click.BadParameter(f"there is {there}; got '{name}'", param_hint="--model")
    return chosen


def _timed(loaded: Loaded, rows: int) -> tuple[float, Any]:
    started = time.perf_counter()
    outputs = run_sample(loaded, rows)
    return (time.perf_counter() - started) * 1000, outputs


def _line(found: Checked) -> str:
    outputs = ", ".join(f"{name} {shape}" for name, shape in found.outputs.items())
    if not outputs:
        return f"{found.model}: loaded in {found.load_s:.2f} s; it declares no inputs and no sample, so nothing was run"
    return (
        f"{found.model}: loaded in {found.load_s:.2f} s, first run {found.first_run_ms:.1f} ms, then "
        f"{found.run_ms:.1f} ms, {found.full_batch_ms:.1f} ms for {found.rows} rows, "
        f"{found.memory_mib:.0f} MiB; gives {outputs}"
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
