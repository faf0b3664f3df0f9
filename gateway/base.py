"""What `Client` and `AsyncClient` share: how they are made, and how a call becomes a request."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from common.brokerurl import check_url, hide_password
from common.errors import ConfigError, InvalidRequest
from common.local import default_broker
from common.names import check_pool, shorten
from gateway.composer import Composer, check_timeout
from gateway.exchange import Exchange
from gateway.routing import Routes

if TYPE_CHECKING:
    from common.tracing import Tracing
    from gateway.ensembles.ensemble import Ensembles
    from gateway.tracing import RequestSpans

#: Enough to keep the fastest pool busy; more only ages in the queue.
WINDOW = 256


class BaseClient:
    """The settings of a client, checked.

    `broker_url`: see `common.connect`; by default that of INFERENCE_WORKER_BROKER, else of an `up` that runs
    on this machine, else redis://127.0.0.1:6379. `pool` takes every request there; `routes` (a file or Routes)
    chooses by model, version and tenant; with neither it is `default-pool`. `ensembles` (a file, or what
    `load_ensembles` gave) can be asked as models are. `tenant` and `timeout_s` hold where a call gives none.
    Over `max_in_flight` unanswered requests the next one waits. With `tracing` each request has its spans, through
    the OpenTelemetry that the application has set up.

    Raises ConfigError. Connects with the first request.
    """

    def __init__(
        self,
        broker_url: str | None,
        *,
        pool: str | None = None,
        routes: Routes | str | Path | None = None,
        ensembles: Ensembles | str | Path | None = None,
        tenant: str | None = None,
        timeout_s: float = 60.0,
        max_in_flight: int = 10_000,
        tracing: Tracing | bool = False,
    ) -> None:
        self._url = broker_url or default_broker()
        check_url(self._url)
        if type(max_in_flight) is not int or max_in_flight < 1:
            raise ConfigError(f"max_in_flight must be at least 1; got {shorten(max_in_flight)}")
        self._shown_url = hide_password(self._url)
        try:
            self._timeout_s = check_timeout(timeout_s, "timeout_s")
            self._composer = Composer(_routes(pool, routes), tenant)
        except InvalidRequest as error:
            raise ConfigError(error.message) from None
        self._ensembles = _ensembles(ensembles)
        self._spans = _spans(tracing)
        self._exchange = Exchange(self._composer, self._shown_url, max_in_flight, self._spans)

    def reroute(self, routes: Routes) -> None:
        """Lead all requests from now on by other rules; those under way stay where they are."""
        self._composer.reroute(routes)

    def _deadline(self, timeout: float | None) -> tuple[float, float]:
        """(deadline in the client's clock, seconds until then). Raises InvalidRequest."""
        timeout_s = self._timeout_s if timeout is None else check_timeout(timeout)
        return time.monotonic() + timeout_s, timeout_s

    def __repr__(self) -> str:
        state = "closed" if self._exchange.closed else f"{self._exchange.unanswered()} unanswered"
        return f"{type(self).__name__}({self._shown_url}, {state})"


def check_map(window: int, on_error: str) -> None:
    """Raises InvalidRequest for settings that `map` does not know."""
    if type(window) is not int or window < 1:
        raise InvalidRequest(f"window must be at least 1; got {shorten(window)}")
    if on_error not in ("raise", "return"):
        raise InvalidRequest(f"on_error must be 'raise' or 'return'; got {on_error!r}")


def _routes(pool: str | None, routes: Routes | str | Path | None) -> Routes:
    if pool is not None and routes is not None:
        raise ConfigError("a client takes either pool or routes, not both")
    if isinstance(routes, Routes):
        return routes
    if routes is not None:
        # Imported where it is needed: most clients read no file.
        from gateway.routefile import load_routes

        return load_routes(routes)
    return Routes() if pool is None else Routes(default=check_pool(pool))


def _spans(tracing: Tracing | bool) -> RequestSpans | None:
    if tracing is False:
        return None
    # Imported where it is needed: most clients trace nothing.
    from gateway.tracing import spans_of

    return spans_of(tracing)


def _ensembles(ensembles: Ensembles | str | Path | None) -> Ensembles | None:
    if not isinstance(ensembles, (str, Path)):
        return ensembles
    from gateway.ensembles.file import load_ensembles

    return load_ensembles(ensembles)
