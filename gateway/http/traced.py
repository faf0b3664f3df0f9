"""Around the HTTP door where that traces: a span for each request, continuing what `traceparent` says of its caller."""

from __future__ import annotations

from opentelemetry.trace import Span, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.tracing import Tracing

#: From here on the fault is the door's, or what it asked; below, its caller's, which fails no server's span.
SERVER_FAULT = 500
_HEADERS = (b"traceparent", b"tracestate")


class Traced:
    """An ASGI app. Names and attributes follow OpenTelemetry's conventions for HTTP servers."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        carrier = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _HEADERS}
        method = scope["method"]
        with self._tracing.serve(method, carrier, {"http.request.method": method}) as span:

            async def seen(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _answered(span, message["status"])
                await send(message)

            await self._app(scope, receive, seen)
            # Only now is it known which route took it: a name with a caller's words in it would be one of millions.
            if route := _route(scope):
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
        return None


def _answered(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= SERVER_FAULT:
        span.set_status(StatusCode.ERROR)


def _route(scope: Scope) -> str:
    """`/models/{model}`; empty where none took it."""
    params = scope.get("path_params")
    if params is None:
        return ""
    names = {str(value): f"{{{name}}}" for name, value in params.items()}
    return "/".join(names.get(piece, piece) for piece in scope["path"].split("/"))
