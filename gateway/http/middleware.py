"""What stands before the routes: pages of other sites, and what no route takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http.endpoint import JSON
from gateway.http.status import Headers, Refusal, headers_of

log = logging.getLogger(__name__)

Shape = Callable[[Refusal], bytes]

#: A door has few names; without keys or behind no proxy anybody may make up others.
_MOST_GOOD = 64
_LOCAL = ("localhost", "127.0.0.1", "::1")


async def refuse(refusal: Refusal, shape: Shape, send: Send) -> None:
    body = shape(refusal)
    headers = [JSON, *headers_of(refusal), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class SameOrigin:
    """Refuses what a page of another site sends from its visitor's browser, but for the origins that are allowed.

    A browser names the page's origin with each POST. Without keys the Host must be local, too: a foreign name that
    was made to point here (DNS rebinding) would be an origin of its own.
    """

    def __init__(self, app: ASGIApp, shape: Shape, allowed: Collection[str], only_local: bool) -> None:
        self._app = app
        self._shape = shape
        self._allowed = allowed
        self._only_local = only_local
        #: Hosts that were looked at and are good, as they stand in the header.
        self._good: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._look(scope["headers"])
            if refusal is not None:
                return await refuse(refusal, self._shape, send)
        return await self._app(scope, receive, send)

    def _look(self, headers: Headers) -> Refusal | None:
        told_host = told_origin = b""
        for name, value in headers:
            if name == b"host":
                told_host = value
            elif name == b"origin":
                told_origin = value
        if not told_origin and told_host in self._good:
            return None
        host, origin = told_host.decode("latin-1"), told_origin.decode("latin-1")
        if self._only_local and _name_of(host) not in _LOCAL:
            return Refusal(421, f"without keys the gateway answers to localhost only, not to '{host}'")
        if origin and origin not in self._allowed and origin.partition("://")[2] != host:
            return Refusal(403, f"pages of {origin} may not ask here: allow them by --cors {origin}")
        if len(self._good) < _MOST_GOOD:
            self._good.add(told_host)
        return None


class Fallback:
    """Answers what no route takes in the JSON of the others."""

    def __init__(self, app: ASGIApp, shape: Shape) -> None:
        self._app = app
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The router raises instead of answering in plain text where somebody is named who catches it.
        scope["app"] = self
        try:
            await self._app(scope, receive, send)
        except HTTPException as error:
            await refuse(_refusal(scope, error), self._shape, send)


def _refusal(scope: Scope, error: HTTPException) -> Refusal:
    headers = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
    if error.status_code == 405:
        return Refusal(405, f"{scope['path']} does not take {scope['method']}", headers)
    return Refusal(404, f"there is nothing at {scope['path']}; GET /docs shows what there is", headers)


def _name_of(host: str) -> str:
    """`host` without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
