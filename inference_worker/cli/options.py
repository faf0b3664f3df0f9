"""Options that several commands share, spelled and explained once."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from common.brokerurl import hide_password
from common.connect import broker_errors, connect, is_silent
from common.errors import AccessDenied, BrokerRefuses, BrokerUnavailable, ConfigError
from common.local import BROKER_VARIABLE, DEFAULT_BROKER, default_broker, distrusted
from common.logs import FORMATS, LEVELS
from inference_worker.supervision.settings import FleetSettings

if TYPE_CHECKING:
    import redis

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULTS = FleetSettings()
#: Whoever waits at a prompt is told after so long that Redis accepts connections and does not answer.
SILENT_S = 3.0
#: Workers tell their counts once a second: over less time there are no rates.
LEAST_INTERVAL_S = 1.0

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """These as one decorator, in this order in `--help`."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class FiniteRange(click.FloatRange):
    """A number, such as of seconds, within bounds; NaN, which compares with nothing, and infinity are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is no finite number.", param, ctx)
        return number


def answering(url: str) -> redis.Redis:
    """A client of a broker that answers now: whoever waits at a prompt should not wait for one that does not run.

    Raises BrokerUnavailable with the next step, ConfigError.
    """
    try:
        probe = connect(url, SILENT_S)
        with broker_errors(), closing(probe):
            probe.ping()
    except AccessDenied as error:
        raise ConfigError(error.message) from error
    except BrokerRefuses as error:
        raise BrokerRefuses(f"the broker at {hide_password(url)}: {error}") from error
    except BrokerUnavailable as error:
        if is_silent(error):
            raise BrokerUnavailable(
                f"the broker at {hide_password(url)} accepts connections and has not answered within {SILENT_S:g} s: "
                "it stands still or is busy; look at its process and its log"
            ) from error
        unread = f"; what a running `up` announces is not read: {why}" if (why := distrusted()) else ""
        raise BrokerUnavailable(
            f"no broker answers at {hide_password(url)} ({error.__cause__ or error}); "
            f"start one by `inference-worker up`, or name yours by --broker or {BROKER_VARIABLE}{unread}"
        ) from error
    return connect(url)


def size_of(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """An option's size, such as "2GiB", in bytes. Raises click.BadParameter."""
    # Only for those commands that take sizes: it imports the backends' table.
    from inference_worker.models.manifest import parse_size

    try:
        return None if value is None else parse_size(value)
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, param) from error


broker_option = click.option(
    "--broker",
    envvar=BROKER_VARIABLE,
    default=default_broker,
    show_default=f"that of a running `up`, else {DEFAULT_BROKER}",
    metavar="URL",
    help="redis://, rediss://, unix://, redis+sentinel://HOST,HOST/SERVICE or redis+cluster://HOST,HOST. "
    f"A password belongs into {BROKER_VARIABLE} rather than on the command line.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")

routes_option = click.option(
    "--routes",
    type=EXISTING_FILE,
    help="Routing rules: (model, version, tenant) to pool.",
)

ensembles_option = click.option(
    "--ensembles",
    type=EXISTING_FILE,
    help="Models chained into one: MODEL may be the name of one of these.",
)

#: What to look at, and how often.
look_options = together(
    click.option("--pool", "pools", multiple=True, help="Only this pool; several are fine. [default: all of them]"),
    click.option(
        "--interval",
        "interval_s",
        type=FiniteRange(min=LEAST_INTERVAL_S),
        default=2.0,
        show_default=True,
        help="Seconds between two looks, over which rates are taken.",
    ),
)

#: What whoever serves says of what it does: to a log, and to a collector of traces.
observing_options = together(
    click.option(
        "--log-format",
        type=click.Choice(FORMATS, case_sensitive=False),
        envvar="INFERENCE_WORKER_LOG_FORMAT",
        default=DEFAULTS.log_format,
        show_default=True,
        help="Log lines for people, or JSON.",
    ),
    click.option(
        "--tracing",
        is_flag=True,
        envvar="INFERENCE_WORKER_TRACING",
        help="Send spans to an OpenTelemetry collector: OTEL_EXPORTER_OTLP_ENDPOINT. [extra: tracing]",
    ),
)

#: What `up` and `worker` tell a supervisor.
fleet_options = together(
    click.option(
        "--device",
        default="auto",
        show_default=True,
        help="cpu, cuda, cuda:N or auto (every GPU, and a CPU pool on the cores left over); several by commas.",
    ),
    click.option("--procs", type=click.IntRange(min=1), help="CPU processes. [default: one for each four cores]"),
    click.option(
        "--lease",
        "lease_s",
        type=FiniteRange(min=1),
        default=DEFAULTS.lease_s,
        show_default=True,
        help="Seconds after which others take over the work of a host that is gone.",
    ),
    click.option(
        "--max-deliveries",
        type=click.IntRange(min=1),
        default=DEFAULTS.max_deliveries,
        show_default=True,
        help="A request that so many workers died of becomes a dead letter.",
    ),
    click.option(
        "--reply-ttl",
        "reply_ttl_s",
        type=FiniteRange(min=1),
        default=DEFAULTS.reply_ttl_s,
        show_default=True,
        help="Seconds for which a reply that is not cached can be fetched.",
    ),
    click.option(
        "--drain",
        "drain_s",
        type=FiniteRange(min=0),
        default=DEFAULTS.drain_s,
        show_default=True,
        help="Seconds for running batches to end after SIGTERM or Ctrl-C; a second one ends them at once.",
    ),
    click.option(
        "--max-backlog",
        type=click.IntRange(min=1),
        help="Bound on a pool's unfinished requests, for all clients. [default: as it is, 100,000 at first]",
    ),
    click.option("--lazy", is_flag=True, help="Load a model when it is first asked for, or if it is pinned."),
    click.option(
        "--memory-budget",
        callback=size_of,
        metavar="SIZE",
        help="Such as 300MB, for all models of each worker process; the least recently used are evicted.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(LEVELS, case_sensitive=False),
        default=DEFAULTS.log_level,
        show_default=True,
        help="What the workers log to standard error.",
    ),
    observing_options,
)
