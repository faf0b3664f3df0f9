"""What commands with a PATH share: a URL in its place, the options of fetched repositories, and the bar of a fetch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from inference_worker.cli.options import together
from inference_worker.host_cache import CACHE_VARIABLE
from inference_worker.models.repository import fetch_model, models_at
from inference_worker.models.spec import ModelSpec
from inference_worker.models.trust import check_trust
from inference_worker.remote.location import is_url, parse
from inference_worker.remote.options import DEFAULT_SIZE, SIZE_VARIABLE, TRUST_VARIABLE
from inference_worker.remote.progress import Progress

#: Where output is piped, a fetch says so often how far it is.
_SAY_S = 5.0


class Place(click.Path):
    """A path that exists, or the URL of a remote repository; a string."""

    name = "path or url"

    def __init__(self) -> None:
        super().__init__(exists=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and is_url(value):
            parse(value)
            return value
        return super().convert(value, param, ctx)


def _exporter(variable: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def export(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None:
            os.environ[variable] = str(value)

    return export


#: For commands that fetch. They go into the environment, where this process and its workers read them.
repository_options = together(
    click.option(
        "--cache",
        envvar=CACHE_VARIABLE,
        expose_value=False,
        callback=_exporter(CACHE_VARIABLE),
        type=click.Path(file_okay=False),
        help="Where repositories at a URL are kept. [default: inference-worker in the user's cache]",
    ),
    click.option(
        "--cache-size",
        envvar=SIZE_VARIABLE,
        expose_value=False,
        callback=_exporter(SIZE_VARIABLE),
        metavar="SIZE",
        help=f"Bound of the cache; what was used longest ago goes first. [default: {DEFAULT_SIZE}]",
    ),
    click.option(
        "--trust-code",
        is_flag=True,
        default=None,
        envvar=TRUST_VARIABLE,
        expose_value=False,
        callback=_exporter(TRUST_VARIABLE),
        help="Run the Python of models at a URL too: whoever may write there may do anything here.",
    ),
)


def fetch_models(specs: Iterable[ModelSpec]) -> None:
    """Have all files of these models on this host, and show how it goes. Raises what fetch_model raises."""
    specs = list(specs)
    for spec in specs:
        check_trust(spec)
    with fetching() as tell:
        for spec in specs:
            fetch_model(spec, tell)


def fetched(places: Iterable[str], pool: str | None = None) -> None:
    """Fetch what workers will ask for, before they start: where it fails one line says it, and the bar is one."""
    remote = [spec for place in places if is_url(place) for spec in models_at(place)]
    fetch_models(spec for spec in remote if pool in (None, spec.pool))


@contextmanager
def fetching() -> Iterator[Progress]:
    """While it lasts, call it with what is done: a bar on a terminal, else a line now and then; on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None, visible=False)

        def show(repository: str, done: int, of: int) -> None:
            bars.update(task, description=f"fetching {repository}", completed=done, total=of, visible=True)

        yield show


class _Lines:
    """How far a fetch is, where nobody sees a bar: at its end, and every few seconds."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + _SAY_S

    def __call__(self, repository: str, done: int, of: int) -> None:
        if done < of and time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + _SAY_S
        click.echo(f"fetched {done / 1e6:,.1f} of {of / 1e6:,.1f} MB of {repository}", err=True)
