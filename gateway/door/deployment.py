"""Opens what a door needs, puts it together, and closes it again."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.connect import connect, connect_async
from common.errors import ConfigError
from common.keys import DEFAULT_POOL
from common.tracing import SERVICE, open_tracing
from gateway.access.guard import Guard
from gateway.access.keyring import Keyring
from gateway.access.store import BrokerStore, FileStore, Store
from gateway.access.tenant import with_pools
from gateway.aioclient import AsyncClient
from gateway.composer import Composer
from gateway.door.adaptive import AdaptiveLimit
from gateway.door.directory import Directory
from gateway.door.gate import Gate
from gateway.door.jobs import Jobs
from gateway.door.memory import Memory
from gateway.door.reload import WatchedFile
from gateway.door.service import Service
from gateway.door.settings import BROKER_KEYS, DoorSettings
from gateway.ensembles.file import load_ensembles
from gateway.routefile import load_routes
from gateway.routing import Routes

if TYPE_CHECKING:
    from gateway.access.tokens import Tokens
    from gateway.door.meter import DoorMeter

_LEAST_ADAPTIVE = 8


class Rules:
    """The routes that hold now: those of the file, and behind them each tenant's pool. All who route are told."""

    def __init__(self, client: AsyncClient, composer: Composer, routes: Routes) -> None:
        self._client = client
        self._composer = composer
        self._of_file = routes
        self._keyring = Keyring()
        self.routes = routes

    def of_file(self, routes: Routes) -> None:
        self._of_file = routes
        self._tell()

    def of_tenants(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._tell()

    def _tell(self) -> None:
        self.routes = with_pools(self._of_file, self._keyring.tenants.values())
        self._client.reroute(self.routes)
        self._composer.reroute(self.routes)


@asynccontextmanager
async def open_service(settings: DoorSettings) -> AsyncIterator[Service]:
    """A service whose keys and routes follow their files. Raises ConfigError, and BrokerUnavailable for keys there."""
    routes = load_routes(settings.routes) if settings.routes else Routes(default=settings.pool or DEFAULT_POOL)
    ensembles = load_ensembles(settings.ensembles) if settings.ensembles else {}
    redis, limits = connect_async(settings.broker_url), settings.limits
    tracing = open_tracing(settings.tracing, os.environ, f"{SERVICE}-gateway", f"{socket.gethostname()}-{os.getpid()}")
    async with AsyncClient(
        settings.broker_url,
        routes=routes,
        ensembles=ensembles,
        timeout_s=settings.timeout_s,
        tracing=tracing or False,
    ) as client:
        composer = Composer(routes)
        rules = Rules(client, composer, routes)
        guard = Guard(_store(settings), rules.of_tenants, tokens=_tokens(settings))
        await guard.look()
        meter = _meter(settings)
        adaptive = AdaptiveLimit(min(limits.total, 128), _LEAST_ADAPTIVE, limits.total) if settings.adaptive else None
        gate = Gate(limits, adaptive, time.monotonic)
        watches = [asyncio.create_task(guard.keep_looking(), name="keys")]
        if meter is not None:
            watches.append(asyncio.create_task(meter.keep_looking(gate.limiter), name="metrics"))
        if settings.routes:
            file = WatchedFile(Path(settings.routes), load_routes, rules.of_file)
            watches.append(asyncio.create_task(file.keep_looking(), name="routes"))
        try:
            yield _kind(meter)(
                settings.broker_url,
                client,
                Directory(redis, lambda: rules.routes, time.monotonic, ensembles),
                Jobs(redis, composer),
                gate,
                guard,
                Memory(settings.max_bodies),
                settings.timeout_s,
                tracing=tracing,
            )
        finally:
            await _end(watches)
            await redis.aclose()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)


def _meter(settings: DoorSettings) -> DoorMeter | None:
    """Raises ConfigError where there is no room for its file."""
    if settings.metrics is None:
        return None
    from gateway.door.meter import DoorMeter

    return DoorMeter(Path(settings.metrics))


def _kind(meter: DoorMeter | None) -> Callable[..., Service]:
    if meter is None:
        return Service
    from gateway.door.metered import MeteredService

    return partial(MeteredService, meter)


def _store(settings: DoorSettings) -> Store | None:
    if settings.keys is None:
        return None
    return BrokerStore(connect(settings.broker_url)) if settings.keys == BROKER_KEYS else FileStore(settings.keys)


def _tokens(settings: DoorSettings) -> Tokens | None:
    if settings.issuer is None:
        return None
    try:
        from gateway.access.jwks import Jwks
        from gateway.access.tokens import Tokens
    except ModuleNotFoundError as error:
        raise ConfigError(f"tokens need '{error.name}', not installed: pip install 'inference-worker[jwt]'") from None

    return Tokens(settings.issuer, Jwks(settings.issuer))


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
