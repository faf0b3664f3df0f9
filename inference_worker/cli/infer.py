"""inference-worker infer MODEL"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import click
import numpy as np

from common.errors import InvalidRequest
from common.keys import DEFAULT_POOL, PRIORITIES
from common.tensor import Array
from gateway import Client, Result
from gateway.routefile import load_routes
from inference_worker.cli.options import FiniteRange, answering, broker_option, ensembles_option, routes_option

SUFFIXES = (".npy", ".npz", ".json")


@click.command("infer")
@click.argument("model")
@click.option("--text", "texts", multiple=True, help="A string; several make several rows.")
@click.option("--json", "json_text", metavar="JSON", help='A value, or a map of inputs such as {"x": [1]}; - reads it.')
@click.option("--npy", "npys", multiple=True, metavar="[NAME=]FILE", help="An array from a .npy file.")
@click.option("--param", "parameters", multiple=True, metavar="NAME=JSON", help="A parameter of the request.")
@click.option("--version", help="The model's version or alias. [default: the newest]")
@click.option("--pool", help=f"The pool to send it to, whatever the routes say. [default: {DEFAULT_POOL}]")
@routes_option
@ensembles_option
@click.option("--tenant", help="Whose request it is.")
@click.option("--affinity", help="What keeps to one version where requests are split by key, such as a user.")
@click.option(
    "--priority", type=click.Choice(PRIORITIES), default="normal", show_default=True, help="Whose turn it is first."
)
@click.option(
    "--timeout", type=FiniteRange(min=0.001), default=60.0, show_default=True, help="Seconds to wait for the answer."
)
@click.option("--no-cache", is_flag=True, help="Compute it even if the result is known.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="The answer for people, or as JSON.",
)
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write .npy, .npz or .json.")
@broker_option
def command(
    model: str,
    texts: tuple[str, ...],
    json_text: str | None,
    npys: tuple[str, ...],
    parameters: tuple[str, ...],
    version: str | None,
    pool: str | None,
    routes: Path | None,
    ensembles: Path | None,
    tenant: str | None,
    affinity: str | None,
    priority: str,
    timeout: float,
    no_cache: bool,
    form: str,
    output: Path | None,
    broker: str,
) -> None:
    """Send one request to MODEL and print the answer.

    \b
    Example:
      inference-worker infer minilm --text "What is a lease?" --text "Who renews it?"
      inference-worker infer embed-v2 --json "[0.5, 1.5]" --format json
      inference-worker infer echo --npy x.npy --output y.npy
    """
    inputs = inputs_of(texts, json_text, npys)
    settings = dict(parse_pair("--param", one) for one in parameters)
    if output is not None and output.suffix not in SUFFIXES:
        raise click.BadParameter(f"must end in {', '.join(SUFFIXES)}; got '{output}'", param_hint="--output")
    answering(broker).close()
    with Client(broker, pool=pool, routes=load_routes(routes) if routes else None, ensembles=ensembles) as client:
        result = client.infer(
            model,
            inputs,
            version=version,
            parameters=settings,
            priority=priority,
            timeout=timeout,
            tenant=tenant,
            cache=not no_cache,
            affinity=affinity,
        )
    if output is not None:
        write(output, result)
    elif form == "json":
        click.echo(json.dumps(_jsonable(result.outputs)))
    else:
        click.echo(readable(result))


def inputs_of(texts: tuple[str, ...], json_text: str | None, npys: tuple[str, ...]) -> Any:
    """The one kind of input that was given. Raises click.UsageError for none or several kinds."""
    given = [kind for kind, value in (("--text", texts), ("--json", json_text), ("--npy", npys)) if value]
    if len(given) != 1:
        raise click.UsageError(f"give one of --text, --json or --npy; got {' and '.join(given) or 'none'}")
    if texts:
        return texts[0] if len(texts) == 1 else list(texts)
    if json_text:
        return _parse_json("--json", _standard_input() if json_text == "-" else json_text)
    arrays = dict(_array(one) for one in npys)
    return arrays[""] if list(arrays) == [""] else arrays


def write(path: Path, result: Result) -> None:
    """The outputs to a file, by its suffix; .npy holds one output only. Raises InvalidRequest."""
    if path.suffix == ".json":
        path.write_text(json.dumps(_jsonable(result.outputs)) + "\n", "utf-8")
        return
    arrays: dict[str, Any] = {name: _storable(array) for name, array in result.outputs.items()}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif len(arrays) == 1:
        np.save(path, next(iter(arrays.values())))
    else:
        raise InvalidRequest(f"a .npy file holds one array, and the outputs are {', '.join(arrays)}; write a .npz")


def _storable(array: Array) -> Array:
    """Strings as numpy's own: objects would be pickled, which nobody should load."""
    return np.array(_decoded(array.tolist()), dtype=np.str_) if array.dtype == object else array


def readable(result: Result) -> str:
    """The outputs, large arrays shortened, and where the time went."""
    with np.printoptions(precision=4, threshold=12, edgeitems=3, linewidth=100):
        lines = [f"{name} {list(array.shape)}: {array}" for name, array in result.outputs.items()]
    times = result.timings
    origin = (
        "from the cache"
        if result.cached
        else (
            f"queue {times.queue_us / 1000:.1f} ms, wait {times.wait_us / 1000:.1f} ms, "
            f"compute {times.compute_us / 1000:.1f} ms in a batch of {times.batch_rows}"
        )
    )
    return "\n".join([*lines, click.style(f"{result.model}:{result.version}, {origin}", dim=True)])


def _jsonable(outputs: Mapping[str, Array]) -> dict[str, Any]:
    return {name: _decoded(array.tolist()) for name, array in outputs.items()}


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _array(argument: str) -> tuple[str, Array]:
    name, equals, path = argument.rpartition("=")
    try:
        # Without pickle: a file of objects could run code.
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror or error}", param_hint="--npy") from error
    except (ValueError, EOFError, MemoryError, BadZipFile) as error:
        # An EOFError that leaves a command is taken by click for a Ctrl-D, and ends it as an interrupt does.
        raise click.BadParameter(f"{path} holds no plain array: {error}", param_hint="--npy") from error
    if not isinstance(array, np.ndarray):
        raise click.BadParameter(f"{path} holds several arrays; save each as .npy", param_hint="--npy")
    return (name if equals else ""), array


def parse_pair(option: str, argument: str) -> tuple[str, Any]:
    """`NAME=JSON`. Raises click.BadParameter."""
    name, equals, text = argument.partition("=")
    if not equals:
        raise click.BadParameter(f"must be NAME=JSON; got '{argument}'", param_hint=option)
    return name, _parse_json(option, text)


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"standard input is not UTF-8: {error}", param_hint="--json") from error


def _parse_json(option: str, text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise click.BadParameter("nests too deeply", param_hint=option) from error
    except ValueError as error:
        # Not JSON, or an integer with more digits than Python reads.
        raise click.BadParameter(f"is not JSON: {error}", param_hint=option) from error
