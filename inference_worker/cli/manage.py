"""inference-worker models load | unload | reload"""

from __future__ import annotations

from typing import Any

import click

from common.orders import LOAD, RELOAD, UNLOAD, Report
from common.versions import label_of
from inference_worker.cli.options import FiniteRange, answering, broker_option, json_option, together
from inference_worker.cli.orders import show
from inference_worker.devices.memory import show_bytes

_order_options = together(
    click.argument("model", metavar="NAME[:VERSION]"),
    click.option("--pool", help="Whose workers. [default: the one that serves the model, or the only one]"),
    click.option(
        "--timeout",
        "timeout_s",
        type=FiniteRange(min=1),
        default=120.0,
        show_default=True,
        help="Seconds to wait for the workers' answers; what has begun by then goes on.",
    ),
    json_option,
    broker_option,
)


@click.command("load")
@_order_options
def load(**options: Any) -> None:
    """Load what is not loaded yet: of NAME each version in the repository, or one VERSION.

    Each worker of the pool looks at its paths again. Requests without a version then go to the newest.

    \b
    Example:
      cp -r sentiment-v3 /models/sentiment/3
      inference-worker models load sentiment:3
    """
    _give(LOAD, **options)


@click.command("unload")
@_order_options
def unload(**options: Any) -> None:
    """Serve NAME, or one VERSION or alias of it, no more. Requests that were taken before are answered.

    \b
    Example:
      inference-worker models unload sentiment:3
    """
    _give(UNLOAD, **options)


@click.command("reload")
@click.option("--swap", is_flag=True, help="Unload first, where memory does not take both; requests wait meanwhile.")
@_order_options
def reload(**options: Any) -> None:
    """Load NAME, or one VERSION of it, as it is in the repository now, and change over when it has run its sample.

    Requests never fail for it. Where a new model does not load or fails its sample, the old one stays. Without a
    VERSION new ones are loaded too, and those that are no longer there unloaded.

    \b
    Example:
      inference-worker models reload sentiment
    """
    _give(RELOAD, **options)


def _give(
    do: str, model: str, pool: str | None, timeout_s: float, as_json: bool, broker: str, swap: bool = False
) -> None:
    from gateway.admin.manage import Manager

    name, _, version = model.partition(":")
    manager = Manager(answering(broker))
    where = pool or manager.pool_of(name)
    reports = manager.give(where, do, name, version or None, swap, timeout_s)
    show(f"{do} {label_of(name, version or None)}", where, reports, as_json, _outcome, warn_of_notes=True)


def _outcome(report: Report) -> str:
    models = ", ".join(report.models) or "nothing to do"
    note = f"; note: {report.note}" if report.note else ""
    return f"{models} in {report.seconds:.2f} s, {show_bytes(report.memory)} resident{note}"
