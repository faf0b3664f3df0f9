"""Options that several commands share, spelled and explained once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from common.connect import broker_errors, connect, hide_password
from common.errors import BrokerUnavailable
from common.local import BROKER_VARIABLE, DEFAULT_BROKER, default_broker

if TYPE_CHECKING:
    import redis

Command = TypeVar("Command", bound=Callable[..., Any])


def answering(url: str) -> redis.Redis:
    """A client of a broker that answers now: whoever waits at a prompt should not wait for one that does not run.

    Raises BrokerUnavailable with the next step, ConfigError.
    """
    try:
        client = connect(url)
        with broker_errors():
            client.ping()
    except BrokerUnavailable as error:
        raise BrokerUnavailable(
            f"no broker answers at {hide_password(url)} ({error.__cause__ or error}); "
            f"start one by `inference-worker up`, or name yours by --broker or {BROKER_VARIABLE}"
        ) from error
    return client


def broker_option(command: Command) -> Command:
    return click.option(
        "--broker",
        envvar=BROKER_VARIABLE,
        default=default_broker,
        show_default=f"that of a running `up`, else {DEFAULT_BROKER}",
        metavar="URL",
        help="redis://, rediss://, unix://, redis+sentinel://HOST,HOST/SERVICE or redis+cluster://HOST,HOST. "
        f"A password belongs into {BROKER_VARIABLE} rather than on the command line.",
    )(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")(command)


def routes_option(command: Command) -> Command:
    return click.option(
        "--routes",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Routing rules: (model, version, tenant) to pool.",
    )(command)


def fleet_options(command: Command) -> Command:
    """What `up` and `worker` tell a supervisor."""
    for option in reversed(
        (
            click.option(
                "--device",
                default="auto",
                show_default=True,
                help="cpu, cuda, cuda:N or auto (every GPU, and a CPU pool on the cores left over); several by commas.",
            ),
            click.option(
                "--procs", type=click.IntRange(min=1), help="CPU processes. [default: one for each four cores]"
            ),
            click.option(
                "--lease",
                "lease_s",
                type=click.FloatRange(min=1),
                default=10.0,
                show_default=True,
                help="Seconds after which others take over the work of a host that is gone.",
            ),
            click.option(
                "--max-deliveries",
                type=click.IntRange(min=1),
                default=3,
                show_default=True,
                help="A request that so many workers died of becomes a dead letter.",
            ),
            click.option(
                "--reply-ttl",
                "reply_ttl_s",
                type=click.FloatRange(min=1),
                default=60.0,
                show_default=True,
                help="Seconds for which a reply that is not cached can be fetched.",
            ),
            click.option(
                "--drain",
                "drain_s",
                type=click.FloatRange(min=0),
                default=30.0,
                show_default=True,
                help="Seconds for running batches to end after SIGTERM or Ctrl-C; a second one ends them at once.",
            ),
            click.option(
                "--max-backlog",
                type=click.IntRange(min=1),
                help="Bound on a pool's unfinished requests, for all clients. [default: as it is, 100,000 at first]",
            ),
            click.option(
                "--log-level",
                type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
                default="warning",
                show_default=True,
                help="What the workers log to standard error.",
            ),
        )
    ):
        command = option(command)
    return command
