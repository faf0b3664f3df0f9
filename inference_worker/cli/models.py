"""inference-worker models list | check"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inference_worker.backends import open_model
from inference_worker.cli.options import answering, broker_option, json_option
from inference_worker.registry import Loaded
from inference_worker.repository import discover
from inference_worker.sample import run_sample
from inference_worker.spec import ModelSpec, TensorSpec

if TYPE_CHECKING:
    from gateway.catalog import Declared, ModelInfo


@click.group("models")
def command() -> None:
    """List the models that a broker's workers serve, or load some here and check them."""


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
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--model", "name", help="Only this one of the models there.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@json_option
def check(path: Path, name: str | None, device: str, threads: int, as_json: bool) -> None:
    """Load each model under PATH, run its sample through all of its stages, and print times and memory.

    \b
    Example:
      inference-worker models check examples/models/sentiment
    """
    for spec in _chosen(path, name):
        found = check_model(spec, device, threads)
        click.echo(json.dumps(asdict(found)) if as_json else _line(found))


def check_model(spec: ModelSpec, device: str, threads: int) -> Checked:
    """Raises ConfigError or ModelError where the model does not load, or its sample does not run."""
    memory, started = _peak_mib(), time.perf_counter()
    loaded = Loaded(spec, open_model(spec, device, threads))
    load_s = time.perf_counter() - started
    first_ms, outputs = _timed(loaded, 1)
    run_ms, _ = _timed(loaded, 1)
    batch_ms, _ = _timed(loaded, spec.batch.rows)
    loaded.backend.close()
    shapes = {one: f"{array.dtype}{list(array.shape[1:])}" for one, array in outputs.items()}
    model = f"{spec.name}:{spec.version}"
    return Checked(model, load_s, first_ms, run_ms, batch_ms, spec.batch.rows, _peak_mib() - memory, shapes)


@command.command("list")
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@json_option
@broker_option
def list_models(path: Path | None, as_json: bool, broker: str) -> None:
    """The models that workers serve now, or, with PATH, those that are declared there.

    \b
    Example:
      inference-worker models list
      inference-worker models list examples/models --json
    """
    rows = declared(path) if path else served(broker)
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        takes, gives = ", ".join(row["inputs"]) or "any inputs", ", ".join(row["outputs"]) or "any outputs"
        aliases = f" ({', '.join(row['aliases'])})" if row["aliases"] else ""
        click.echo(f"{row['name']}:{row['version']}{aliases}  pool {row['pool']}  ({takes}) -> ({gives})")
    if not rows:
        click.echo("no models", err=True)


def declared(path: Path) -> list[dict[str, Any]]:
    return [_row(spec, spec.pool) for spec in discover(path)]


def served(broker: str) -> list[dict[str, Any]]:
    from gateway.admin import Admin

    pools = Admin(answering(broker)).snapshot().pools
    return [_row(model, pool.name) for pool in pools for model in pool.models]


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


def _chosen(path: Path, name: str | None) -> Iterable[ModelSpec]:
    specs = discover(path)
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
