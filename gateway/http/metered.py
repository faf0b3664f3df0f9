"""Around the HTTP door where that is measured: each request by the status of its answer, and how long it took."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.door.meter import DoorMeter

DOOR = "http"
#: What nginx writes for a client that went away before it was answered.
GONE = 499


class Metered:
    """An ASGI app."""

    def __init__(self, app: ASGIApp, meter: DoorMeter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = GONE
        began_s = time.monotonic()

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            self._meter.request(DOOR, status, time.monotonic() - began_s)
