"""From the flags of `gateway` and `up` to a door's settings, and the door beside a fleet."""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import wraps
from pathlib import Path
from threading import Thread
from typing import Any

import click

from common.errors import ConfigError
from gateway.access.issuer import Issuer
from gateway.door.limiter import Limits
from gateway.door.listening import claim
from gateway.door.processes import Processes
from gateway.door.settings import BROKER_KEYS, Address, DoorSettings, parse_address
from inference_worker.cli.lines import say
from inference_worker.cli.options import Command, FiniteRange, size_of, together
from inference_worker.supervision.stopsignals import StopSignals
from inference_worker.supervision.supervisor import Supervisor

_LIMITS = Limits()


class DoorAddress(click.ParamType[Address]):
    """`:8000` on loopback, `0.0.0.0:8000` for everybody."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        return value if isinstance(value, Address) else parse_address(str(value))


#: Who may ask: what `up` and `gateway` share.
access_options = together(
    click.option(
        "--keys",
        metavar=f"FILE|{BROKER_KEYS}",
        help=f"Ask for API keys: those of a file, or those in the broker ({BROKER_KEYS}).",
    ),
    click.option("--insecure", is_flag=True, help="Listen without keys on an address that others can reach."),
)


_issuer_options = together(
    click.option("--jwt-issuer", metavar="URL", help="Accept its tokens (OpenID Connect) besides keys."),
    click.option("--jwt-audience", metavar="NAME", help="What must stand in a token's `aud`."),
    click.option("--jwks", metavar="FILE|URL", help="The issuer's public keys."),
    click.option("--jwt-tenant", metavar="CLAIM", help="The claim that names the tenant, where no `keys map` does."),
)


def token_options(command: Command) -> Command:
    """Whose tokens are accepted besides keys. They arrive as one value, `issuer`."""

    @wraps(command)
    def with_issuer(
        *args: Any,
        jwt_issuer: str | None,
        jwt_audience: str | None,
        jwks: str | None,
        jwt_tenant: str | None,
        **more: Any,
    ) -> Any:
        return command(*args, issuer=_issuer(jwt_issuer, jwt_audience, jwks, jwt_tenant), **more)

    return _issuer_options(with_issuer)  # type: ignore[return-value]  # wraps() tells less than it gives


def _issuer(url: str | None, audience: str | None, jwks: str | None, tenant_claim: str | None) -> Issuer | None:
    if url is None and audience is None and jwks is None and tenant_claim is None:
        return None
    if url is None or audience is None or jwks is None:
        raise ConfigError("tokens need all three of --jwt-issuer, --jwt-audience and --jwks")
    is_url = "://" in jwks
    return Issuer(url, audience, jwks if is_url else str(Path(jwks).absolute()), tenant_claim)


limit_options = together(
    click.option(
        "--concurrency",
        "total",
        type=click.IntRange(min=1),
        default=_LIMITS.total,
        show_default=True,
        help="Requests that one process lets in at a time; the others queue.",
    ),
    click.option("--per-model", type=click.IntRange(min=1), help="The same for a model. [default: no bound]"),
    click.option(
        "--per-tenant",
        type=click.IntRange(min=1),
        help="The same for each tenant without a limit of its own. [default: no bound]",
    ),
    click.option(
        "--queue",
        type=click.IntRange(min=0),
        default=_LIMITS.queue,
        show_default=True,
        help="Requests that wait to be let in; the next one is refused.",
    ),
    click.option(
        "--patience",
        "patience_s",
        type=FiniteRange(min=0),
        default=_LIMITS.patience_s,
        show_default=True,
        help="Seconds that one waits to be let in before it is refused.",
    ),
    click.option("--adaptive", is_flag=True, help="Find --concurrency by measured latency, up to that number."),
)

body_option = click.option(
    "--max-body",
    metavar="SIZE",
    callback=size_of,
    default="64MiB",
    show_default=True,
    help="A request's size, once inflated.",
)


class Door:
    """Processes that listen on the same addresses; their ports are known, and ours, from now on."""

    def __init__(self, settings: DoorSettings, workers: int) -> None:
        if settings.http is not None and settings.http == settings.grpc and settings.http.port:
            raise ConfigError(f"HTTP and gRPC cannot both listen on {settings.http}: give each a port of its own")
        # Bound for as long as we live: nobody else takes a port between two of our processes.
        self._listeners: list[socket.socket] = []
        self._settings = replace(settings, http=self._bound(settings.http), grpc=self._bound(settings.grpc))
        self._workers = workers
        self._processes = Processes(self._settings, workers, self._say_ready)

    def run(self) -> None:
        """Until SIGTERM or SIGINT, and drained."""
        with StopSignals(self._processes.stop, self._processes.kill, self._processes.wakeup_fd):
            self._run()

    def run_beside(self, fleet: Supervisor) -> None:
        """With the fleet in a thread: a signal drains the door first, so that its last requests are computed.

        Raises what the fleet ends with, or the door.
        """
        ended: list[Exception] = []

        def run_fleet() -> None:
            try:
                fleet.run()
            except Exception as error:
                ended.append(error)
            finally:
                self._processes.stop()

        def kill() -> None:
            self._processes.kill()
            fleet.kill()

        thread = Thread(target=run_fleet, name="fleet")
        with StopSignals(self._processes.stop, kill, self._processes.wakeup_fd):
            thread.start()
            try:
                self._run()
            finally:
                fleet.stop()
                thread.join()
        if ended:
            raise ended[0]

    def close(self) -> None:
        self._processes.close()
        for listener in self._listeners:
            listener.close()

    def _bound(self, address: Address | None) -> Address | None:
        if address is None:
            return None
        self._listeners.append(claim(address))
        return Address(address.host, self._listeners[-1].getsockname()[1])

    def _run(self) -> None:
        self._processes.run()

    def _say_ready(self) -> None:
        of = f" in {self._workers} processes" if self._workers > 1 else ""
        http, grpc = self._settings.http, self._settings.grpc
        if grpc is not None:
            say(f"grpc://{grpc} takes requests{of}", "green", self._settings.log_format)
        if http is not None:
            say(f"http://{http} takes requests{of}; /docs shows what it answers", "green", self._settings.log_format)
