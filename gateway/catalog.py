"""What the workers of a pool say they serve: a lookup over what was fetched last. Fetches nothing itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, cast

from common.errors import InferenceError, InvalidRequest
from common.names import check_name, shorten
from common.scripts import Published
from common.text import describe
from common.traffic import Plan, choose, read_plans
from common.versions import version_order
from common.wire import unpack_map

log = logging.getLogger(__name__)

#: A model that was reloaded, a version that was rolled out, a split that was moved: clients know it so much later
#: at most.
FRESH_S = 5.0


_NO_PLANS: Mapping[str, Plan] = {}
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Declared:
    """One declared input or output: the shape of one item; -1 is any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One version of a model, as its workers published it.

    `weights` is a digest; `rows` a batch's most rows, and `pads` whether these are filled up to the longest.
    """

    name: str
    version: str
    default: bool
    aliases: tuple[str, ...]
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    cache_ttl_s: float
    weights: str
    rows: int
    pads: bool = False


class Catalog:
    """The models of one pool, and how operators lead requests to their versions."""

    def __init__(
        self, models: Iterable[ModelInfo] = (), plans: Mapping[str, Plan] = _NO_PLANS, generation: bytes = b""
    ) -> None:
        self.plans = plans
        self.generation = generation
        self.models = sorted(models, key=lambda info: (info.name, version_order(info.version)))
        self._by_version = {(info.name, name): info for info in self.models for name in (*info.aliases, info.version)}
        # Newest last: it wins where workers of an old and a new release each name their own default.
        self._defaults = {info.name: info for info in self.models if info.default}
        self._served: dict[str, dict[str, str]] = {}
        for (name, label), info in self._by_version.items():
            self._served.setdefault(name, {})[label] = info.version

    def find(self, name: str, version: str | None) -> ModelInfo | None:
        """The model that answers, by version or alias, without either the default; None where nobody says so."""
        if version is None:
            return self._defaults.get(name)
        return self._by_version.get((name, version))

    def choose(
        self, name: str, version: str | None, tenant: str | None, affinity: str | None, request_id: str
    ) -> str | None:
        """The version to ask for; None: the default. What nobody steers stays as it was asked for."""
        plan = self.plans.get(name)
        if plan is None:
            return version
        return choose(plan, name, version, self.served(name), tenant, affinity, request_id)

    def answering(self, name: str, version: str | None) -> list[ModelInfo]:
        """Each version that may answer a request for this one; none where nobody says that it is served."""
        plan, served = self.plans.get(name), self.served(name)
        if plan is None:
            found = [self.find(name, version)]
        elif version is None and (shares := plan.shares(served)):
            found = [self.find(name, plan.version(label, served)) for label in shares]
        else:
            found = [self.find(name, None if version is None else plan.version(version, served))]
        return [info for info in found if info is not None]

    def served(self, name: str) -> Mapping[str, str]:
        """Each version of a model, and each alias from its model.toml -> its version."""
        return self._served.get(name, _NOTHING)


class Catalogs:
    """The catalogs of the pools in use, and which of them are to be fetched."""

    def __init__(self) -> None:
        self._fetched: dict[str, tuple[float, Catalog]] = {}
        self._asked: set[str] = set()

    def fresh(self, pool: str, now: float) -> Catalog | None:
        """The catalog as fetched in the last 5 s, or None."""
        fetched = self._fetched.get(pool)
        return fetched[1] if fetched is not None and now - fetched[0] < FRESH_S else None

    def known(self, pool: str) -> Catalog | None:
        """The catalog as fetched last, however old."""
        fetched = self._fetched.get(pool)
        return fetched[1] if fetched is not None else None

    def ask(self, pool: str) -> None:
        self._asked.add(pool)

    def asked(self) -> str | None:
        """A pool whose catalog somebody waits for."""
        return next(iter(self._asked), None)

    def fetched(self, pool: str, published: Published, now: float) -> None:
        self._asked.discard(pool)
        self._fetched[pool] = now, catalog_of(published)

    def outdated(self, pool: str, generation: bytes) -> None:
        """Redis speaks of this generation of the pool's models: one that was fetched before is not fresh any more."""
        fetched = self._fetched.get(pool)
        if fetched is not None and fetched[1].generation != generation:
            self._fetched[pool] = -inf, fetched[1]

    def refused(self, pool: str, now: float) -> None:
        """Redis refuses to show it: an empty one serves, as nothing in it is needed to ask a model."""
        self._asked.discard(pool)
        self._fetched[pool] = now, self.known(pool) or Catalog()


def catalog_of(published: Published) -> Catalog:
    return Catalog(read_models(published.models), read_plans(published.traffic), published.generation)


def read_models(published: Mapping[str, bytes]) -> list[ModelInfo]:
    """What workers published, `name:version` -> msgpack map; what cannot be read is passed over."""
    return [info for name, data in published.items() if (info := _read(name, data)) is not None]


def _read(name: str, data: bytes) -> ModelInfo | None:
    try:
        message = unpack_map("the metadata", data)
        return ModelInfo(
            check_name("name", message["name"]),
            check_name("version", message["version"]),
            bool(message.get("default", False)),
            tuple(check_name("an alias", alias) for alias in message.get("aliases", ())),
            _declared(message.get("inputs", ())),
            _declared(message.get("outputs", ())),
            float(message.get("cache_ttl_s", 0.0)),
            str(message.get("weights", "")),
            int(message.get("rows", 1)),
            bool(message.get("pads", False)),
        )
    except (InferenceError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        log.warning("the metadata of model %s is passed over: %s", shorten(name), describe(error))
        return None


def _declared(tensors: Iterable[Mapping[str, Any]]) -> tuple[Declared, ...]:
    return tuple(
        Declared(check_name("a tensor's name", one["name"]), str(one["dtype"]), _shape(one["shape"])) for one in tensors
    )


def _shape(sizes: Iterable[object]) -> tuple[int, ...]:
    shape = tuple(sizes)
    if not all(type(size) is int for size in shape):
        raise InvalidRequest(f"a declared shape must hold integers; got {shorten(str(shape))}")
    return cast(tuple[int, ...], shape)
