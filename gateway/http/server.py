"""One process of the HTTP door: a socket, uvicorn, and a drain that no request notices."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
import uvloop

from gateway.door.deployment import open_service
from gateway.door.service import Service
from gateway.door.settings import DoorSettings
from gateway.http.app import make_app
from gateway.http.connection import Connection

log = logging.getLogger(__name__)

BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn, without its signal handlers: `stop` ends it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: DoorSettings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Until SIGTERM or SIGINT; a second one ends at once. `ready` is called when requests are taken."""
    uvloop.run(_serve(settings, listener, ready))


async def _serve(settings: DoorSettings, listener: socket.socket, ready: Callable[[], None]) -> None:
    async with open_service(settings) as service:
        Connection.slow_s = settings.slow_s
        server = Server(_config(settings, service))
        _watch_signals(settings, service, server)
        running = asyncio.create_task(server.serve([listener]), name="server")
        while not server.started and not running.done():
            await asyncio.sleep(0.01)
        ready()
        await running


def _config(settings: DoorSettings, service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        make_app(service, settings),
        http=Connection,
        ws="none",
        lifespan="off",
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(settings.keep_alive_s),
        timeout_graceful_shutdown=int(settings.drain_s),
    )


def _watch_signals(settings: DoorSettings, service: Service, server: Server) -> None:
    """The first one: readiness goes off, and answers ask for a new connection; `notice_s` later no one is taken."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if service.draining:
            server.should_exit = server.force_exit = True
            return
        service.draining = True
        log.warning("draining: readiness is off, connections are taken for another %g s", settings.notice_s)
        loop.call_later(settings.notice_s, _exit)

    def _exit() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
