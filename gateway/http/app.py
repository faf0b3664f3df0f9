"""The HTTP door as an ASGI app: a list of routes, one file for each dialect, and a list of middleware."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from gateway.door.service import Service
from gateway.door.settings import DoorSettings
from gateway.http import health, oip, oip_calls, openai, openapi, plain
from gateway.http.bodies import Bodies
from gateway.http.endpoint import Door
from gateway.http.middleware import Fallback, SameOrigin
from gateway.http.shortcut import Shortcut

#: What a page of an allowed origin may read of an answer.
_EXPOSED = ("inference-header-content-length", "retry-after", "x-error-code", "x-cache", "location", "etag")


def routes(door: Door) -> list[Route]:
    """All of them; those that are asked most come first."""
    return [
        *oip_calls.routes(door),
        *openai.routes(door),
        *plain.routes(door),
        *health.routes(door),
        *openapi.routes(door),
    ]


def make_app(service: Service, settings: DoorSettings) -> ASGIApp:
    """`service` is open, and stays so for as long as the app is used."""
    door = Door(service, Bodies(settings.max_body))
    # Starlette's Router without its Application: errors are shaped by each dialect's endpoints.
    all_routes = routes(door)
    app: ASGIApp = Shortcut(Router(routes=all_routes, redirect_slashes=False), all_routes)
    app = Fallback(app, oip.shape_error)
    only_local = not settings.asks_for_keys and not settings.insecure
    app = SameOrigin(app, oip.shape_error, settings.cors, only_local)
    if settings.cors:
        app = CORSMiddleware(app, settings.cors, allow_methods=["*"], allow_headers=["*"], expose_headers=_EXPOSED)
    if service.meter is not None:
        from gateway.http.metered import Metered

        app = Metered(app, service.meter)
    if service.tracing is not None:
        # Imported where it is needed: it has an extra of its own.
        from gateway.http.traced import Traced

        app = Traced(app, service.tracing)
    return app
