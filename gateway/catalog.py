"""What the workers of a pool say they serve: a lookup over what was fetched last. Fetches nothing itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import InferenceError
from common.versions import version_order
from common.wire import unpack_map

log = logging.getLogger(__name__)

#: A model that was reloaded, or a version that was rolled out, is known to clients so much later at most.
FRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class Declared:
    """One declared input or output: the shape of one item; -1 is any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One version of a model, as its workers published it. `weights` is a digest; `rows` a batch's most rows."""

    name: str
    version: str
    default: bool
    aliases: tuple[str, ...]
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    cache_ttl_s: float
    weights: str
    rows: int


class Catalog:
    """The models of one pool."""

    def __init__(self, models: Iterable[ModelInfo] = ()) -> None:
        self.models = sorted(models, key=lambda info: (info.name, version_order(info.version)))
        self._by_version = {(info.name, name): info for info in self.models for name in (*info.aliases, info.version)}
        # Newest last: it wins where workers of an old and a new release each name their own default.
        self._defaults = {info.name: info for info in self.models if info.default}

    def find(self, name: str, version: str | None) -> ModelInfo | None:
        """The model that answers, by version or alias, without either the default; None where nobody says so."""
        if version is None:
            return self._defaults.get(name)
        return self._by_version.get((name, version))


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

    def fetched(self, pool: str, models: Mapping[str, bytes], now: float) -> None:
        self._asked.discard(pool)
        self._fetched[pool] = now, Catalog(read_models(models))

    def refused(self, pool: str, now: float) -> None:
        """Redis refuses to show it: an empty one serves, as nothing in it is needed to ask a model."""
        self._asked.discard(pool)
        self._fetched[pool] = now, self.known(pool) or Catalog()


def read_models(published: Mapping[str, bytes]) -> list[ModelInfo]:
    """What workers published, `name:version` -> msgpack map; what cannot be read is passed over."""
    return [info for name, data in published.items() if (info := _read(name, data)) is not None]


def _read(name: str, data: bytes) -> ModelInfo | None:
    try:
        message = unpack_map(f"model {name}", data)
        return ModelInfo(
            str(message["name"]),
            str(message["version"]),
            bool(message.get("default", False)),
            tuple(str(alias) for alias in message.get("aliases", ())),
            _declared(message.get("inputs", ())),
            _declared(message.get("outputs", ())),
            float(message.get("cache_ttl_s", 0.0)),
            str(message.get("weights", "")),
            int(message.get("rows", 1)),
        )
    except (InferenceError, KeyError, TypeError, ValueError, AttributeError) as error:
        log.warning("the metadata of model %s is passed over: %s: %s", name, type(error).__name__, error)
        return None


def _declared(tensors: Iterable[Mapping[str, Any]]) -> tuple[Declared, ...]:
    return tuple(Declared(str(one["name"]), str(one["dtype"]), tuple(one["shape"])) for one in tensors)
