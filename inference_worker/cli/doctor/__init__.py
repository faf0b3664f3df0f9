"""inference-worker doctor: looks at the broker, this host and the pools, and says what to do about what it finds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from common.connect import broker_errors
from common.errors import AccessDenied, BrokerUnavailable, ConfigError, InternalError
from common.local import BROKER_VARIABLE
from common.scripts import time_read
from common.text import visible
from gateway.admin.pools import Admin
from inference_worker.cli.doctor import devices, host, models, pools, server
from inference_worker.cli.doctor.finding import Finding, Severity, error
from inference_worker.cli.fetching import Place, repository_options
from inference_worker.cli.options import answering, broker_option, json_option
from inference_worker.processes.exitcodes import Exit

if TYPE_CHECKING:
    import redis

#: Round trips by which Redis is measured; they take a tenth of a second where all is well.
PINGS = 200
PINGS_WITHIN_S = 3.0
_MARKS = {
    Severity.OK: ("ok", "green"),
    Severity.NOTE: ("note", "cyan"),
    Severity.WARNING: ("warning", "yellow"),
    Severity.ERROR: ("error", "red"),
}


@click.command("doctor")
@click.argument("paths", nargs=-1, type=Place(), metavar="[PATH]...")
@click.option("--no-devices", is_flag=True, help="Do not look at GPUs and their libraries, which takes seconds.")
@json_option
@broker_option
@repository_options
def command(paths: tuple[str, ...], no_devices: bool, as_json: bool, broker: str) -> None:
    """Check the broker, this host, the pools, and the models under each PATH; say what to do about each finding.

    Changes nothing. Ends with 1 where something does not work, with 0 where it only may hurt some day.

    \b
    Example:
      inference-worker doctor /models
      inference-worker doctor --json | jq '.[] | select(.severity != "ok")'
    """
    found = []
    for one in _findings(paths, no_devices, broker):
        found.append(one)
        if not as_json:
            _show(one)
    if as_json:
        click.echo(json.dumps([{**asdict(one), "severity": one.severity.name.lower()} for one in found]))
    errors, warnings = (sum(one.severity is kind for one in found) for kind in (Severity.ERROR, Severity.WARNING))
    if not as_json:
        click.echo(f"{len(found)} checks: {errors} errors, {warnings} warnings", err=True)
    if errors:
        raise click.exceptions.Exit(Exit.FAILED)


def _findings(paths: tuple[str, ...], no_devices: bool, broker: str) -> Iterator[Finding]:
    yield from _of_broker(broker)
    yield from host.findings(host.read())
    if not no_devices:
        yield from devices.findings(devices.read())
    for path in paths:
        yield from models.findings(path)


def _of_broker(url: str) -> Iterator[Finding]:
    try:
        client = answering(url)
    except BrokerUnavailable as away:
        yield error("redis", away.message, "nothing works without it", "start it, or name another one by --broker")
        return
    except ConfigError as wrong:
        yield error(
            "redis", wrong.message, "nothing works without it", f"mend the URL in --broker or {BROKER_VARIABLE}"
        )
        return
    refused: list[str] = []
    info = _asked(client, refused, "INFO")
    if info is not None:
        yield server.version(info)
        yield server.role(info)
        yield server.persistence(info)
        yield server.eviction(info)
        yield server.memory(info)
        yield server.clients(info)
    yield server.latency(_pings(client))
    yield _clock(client)
    user = _asked(client, refused, "ACL", "WHOAMI")
    try:
        snapshot = Admin(client).snapshot()
        yield from pools.findings(snapshot.pools, snapshot.at_ms)
    except AccessDenied:
        refused.append("what `status` needs")
    yield server.rights(user.decode(errors="replace") if isinstance(user, bytes) else str(user or "?"), refused)


def _asked(client: redis.Redis, refused: list[str], *command: str) -> Any:
    """Its answer; None, and one more among the `refused`, where this user may not ask."""
    try:
        with broker_errors():
            return client.execute_command(*command)
    except (AccessDenied, InternalError):
        refused.append(" ".join(command))
        return None


def _pings(client: redis.Redis) -> list[float]:
    """Milliseconds of each, until there are enough or time is over."""
    found: list[float] = []
    until_s = time.monotonic() + PINGS_WITHIN_S
    with broker_errors():
        client.execute_command("PING")
        while len(found) < PINGS and time.monotonic() < until_s:
            began_s = time.perf_counter()
            client.execute_command("PING")
            found.append((time.perf_counter() - began_s) * 1000)
    return found


def _clock(client: redis.Redis) -> Finding:
    before_s = time.time()
    with broker_errors():
        redis_ms = time_read(client.execute_command("TIME"))
    return server.clock(redis_ms, before_s, time.time())


def _show(one: Finding) -> None:
    mark, colour = _MARKS[one.severity]
    click.echo(f"{click.style(f'{mark:8}', fg=colour)}{visible(f'{one.check}: {one.what}')}")
    if one.severity is Severity.OK:
        return
    for text in (one.means, one.do and f"→ {one.do}"):
        if text:
            click.echo(f"        {visible(text)}")
