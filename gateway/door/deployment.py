"""Opens what a door needs, puts it together, and closes it again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from common.connect import connect, connect_async
from common.keys import DEFAULT_POOL
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
from gateway.door.reload import WatchedFile
from gateway.door.service import Service
from gateway.door.settings import BROKER_KEYS, DoorSettings
from gateway.routefile import load_routes
from gateway.routing import Routes

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
    redis, limits = connect_async(settings.broker_url), settings.limits
    async with AsyncClient(
        settings.broker_url, routes=routes, ensembles=settings.ensembles, timeout_s=settings.timeout_s
    ) as client:
        composer = Composer(routes)
        rules = Rules(client, composer, routes)
        guard = Guard(_store(settings), rules.of_tenants)
        await guard.look()
        adaptive = AdaptiveLimit(min(limits.total, 128), _LEAST_ADAPTIVE, limits.total) if settings.adaptive else None
        watches = [asyncio.create_task(guard.keep_looking(), name="keys")]
        if settings.routes:
            file = WatchedFile(Path(settings.routes), load_routes, rules.of_file)
            watches.append(asyncio.create_task(file.keep_looking(), name="routes"))
        try:
            yield Service(
                settings.broker_url,
                client,
                Directory(redis, lambda: rules.routes, time.monotonic),
                Jobs(redis, composer),
                Gate(limits, adaptive, time.monotonic),
                guard,
                settings.timeout_s,
            )
        finally:
            await _end(watches)
            await redis.aclose()


def _store(settings: DoorSettings) -> Store | None:
    if settings.keys is None:
        return None
    return BrokerStore(connect(settings.broker_url)) if settings.keys == BROKER_KEYS else FileStore(settings.keys)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
