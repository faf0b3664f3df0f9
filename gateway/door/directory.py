"""What all pools that a door leads to serve now, for its questions about models. No request to a model waits for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from common.aiobroker import AsyncBroker
from common.errors import ModelNotFound
from common.versions import label_of
from gateway.catalog import Catalog, ModelInfo, catalog_of
from gateway.door import chains
from gateway.ensembles.ensemble import Ensemble
from gateway.routing import Routes

if TYPE_CHECKING:
    import redis.asyncio

_NONE: Mapping[str, Ensemble] = {}

#: Many questions in one second ask Redis once.
FRESH_S = 1.0


class PoolView(NamedTuple):
    """A pool's models, and whether a worker lives that would answer."""

    catalog: Catalog
    live: bool


class Served(NamedTuple):
    """One version of a model in a pool; `versions` are all of the same name there."""

    info: ModelInfo
    pool: str
    live: bool
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    """All pools at one time."""

    routes: Routes
    pools: Mapping[str, PoolView] = field(default_factory=dict)
    ensembles: Mapping[str, Ensemble] = field(default_factory=dict)

    def find(self, model: str, version: str | None, tenant: str | None) -> Served:
        """What would answer such a request; of a split its first version. Raises ModelNotFound."""
        if model in self.ensembles:
            return self._chained(self.ensembles[model], tenant)
        pool = self.routes.pool(model, version, tenant)
        seen = self.pools.get(pool)
        found = seen.catalog.answering(model, version) if seen is not None else []
        if seen is None or not found:
            raise ModelNotFound(f"model '{label_of(model, version)}' is not served in pool '{pool}'")
        return _served(found[0], pool, seen)

    def models(self, tenant: str | None) -> list[Served]:
        """Each version that a request of this tenant can reach, by name and version; then the ensembles."""
        found = [
            _served(info, pool, seen)
            for pool, seen in self.pools.items()
            for info in seen.catalog.models
            if pool in (self.routes.pool(info.name, info.version, tenant), self.routes.pool(info.name, None, tenant))
        ]
        # An ensemble goes before a model of its name.
        found = [one for one in found if one.info.name not in self.ensembles]
        return found + [self._chained(one, tenant) for one in self.ensembles.values()]

    def _chained(self, ensemble: Ensemble, tenant: str | None) -> Served:
        """Live where each of its steps would be answered; its pool is its first step's."""
        pools = {step.name: step.pool or self.routes.pool(step.model, step.version, tenant) for step in ensemble.steps}
        seen = {step: self.pools.get(pool) for step, pool in pools.items()}
        models = chains.answering(ensemble, {step: one and one.catalog for step, one in seen.items()})
        live = all(one is not None and one.live for one in seen.values()) and None not in models.values()
        return Served(chains.describe(ensemble, models), pools[ensemble.steps[0].name], live, (chains.VERSION,))


class Directory:
    """Reads through one asyncio Redis client. `routes` gives the rules that hold now."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        routes: Callable[[], Routes],
        clock: Callable[[], float],
        ensembles: Mapping[str, Ensemble] = _NONE,
    ) -> None:
        self._redis = client
        self._routes = routes
        self._clock = clock
        self._ensembles = ensembles
        self._lock = asyncio.Lock()
        self._view = View(Routes())
        self._fresh_until_s = -math.inf

    async def look(self) -> View:
        """At most a second old. Raises BrokerUnavailable."""
        async with self._lock:
            routes = self._routes()
            if self._clock() >= self._fresh_until_s or routes is not self._view.routes:
                names = dict.fromkeys((*routes.pools(), *chains.pools_of(self._ensembles.values())))
                pools = dict(await asyncio.gather(*map(self._pool, names)))
                self._view = View(routes, pools, self._ensembles)
                self._fresh_until_s = self._clock() + FRESH_S
            return self._view

    def is_ensemble(self, model: str) -> bool:
        return model in self._ensembles

    def forget(self) -> None:
        """Models were loaded or unloaded: the next question asks Redis."""
        self._fresh_until_s = -math.inf

    async def _pool(self, name: str) -> tuple[str, PoolView]:
        broker = AsyncBroker(self._redis, name)
        published, workers = await asyncio.gather(broker.published(), broker.workers())
        return name, PoolView(catalog_of(published), workers > 0)


def _served(info: ModelInfo, pool: str, seen: PoolView) -> Served:
    return Served(info, pool, seen.live, _versions(info.name, seen.catalog.models))


def _versions(name: str, models: Iterable[ModelInfo]) -> tuple[str, ...]:
    return tuple(info.version for info in models if info.name == name)
