"""The HTTP entrance of a door: uvicorn on a socket."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn

from gateway.door.listening import listen
from gateway.door.service import Service
from gateway.door.settings import Address, DoorSettings
from gateway.http.app import make_app
from gateway.http.burst import Burst
from gateway.http.connection import Connection
from gateway.http.sweep import Sweep

log = logging.getLogger(__name__)

BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn, without its signal handlers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpEntrance:
    """Readiness and `Connection: close` follow the service: `withdraw` has nothing to do."""

    def __init__(self, service: Service, settings: DoorSettings, address: Address) -> None:
        self._address = address
        self._sweep = Sweep(settings.slow_s)
        self._server = Server(_config(settings, service, self._sweep))
        self._running: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def open(self, ended: Callable[[], None]) -> None:
        running = asyncio.create_task(self._server.serve([listen(self._address)]), name="server")
        running.add_done_callback(lambda _: ended())
        self._running = running
        self._sweeping = asyncio.create_task(self._sweep.keep_looking(), name="sweep")
        while not self._server.started and not running.done():
            await asyncio.sleep(0.01)

    async def withdraw(self) -> None:
        return

    async def close(self) -> None:
        self._server.should_exit = True
        if self._running is not None:
            await self._running
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def abort(self) -> None:
        self._server.force_exit = True


def _config(settings: DoorSettings, service: Service, sweep: Sweep) -> uvicorn.Config:
    return uvicorn.Config(
        make_app(service, settings),
        interface="asgi3",
        http=partial(Connection, sweep, Burst()),  # type: ignore[arg-type]  # it only calls it
        ws="none",
        lifespan="off",
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(settings.keep_alive_s),
        timeout_graceful_shutdown=int(settings.drain_s),
    )
