"""The models that a process serves, by name and version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Lock

from common.errors import ModelNotFound
from common.names import shorten
from common.versions import version_order
from inference_worker.backends.base import Backend
from inference_worker.spec import ModelSpec, check_apart

#: Names listed in an error; a registry may hold hundreds.
MOST_LISTED = 10


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model that can run."""

    spec: ModelSpec
    backend: Backend


class Registry:
    """Thread-safe. A version is found by itself and by its aliases, a model without either by its newest version."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: name -> version -> model, versions from old to new
        self._models: dict[str, dict[str, Loaded]] = {}

    def register(self, spec: ModelSpec, backend: Backend) -> Loaded:
        """Serve `spec` from now on. Raises ConfigError where its version, or an alias, is taken already."""
        loaded = Loaded(spec, backend)
        with self._lock:
            versions = self._models.get(spec.name, {})
            for other in versions.values():
                check_apart(other.spec, spec)
            versions = {**versions, spec.version: loaded}
            self._models[spec.name] = dict(sorted(versions.items(), key=lambda pair: version_order(pair[0])))
        return loaded

    def get(self, name: str, version: str | None = None) -> Loaded:
        """A model by a version or an alias of one, by default its newest. Raises ModelNotFound naming what is there."""
        with self._lock:
            versions = self._models.get(name)
            if versions is None:
                there = _listed(sorted(self._models))
                raise ModelNotFound(f"no model {shorten(name)} is served here; there is {there}")
            if version is None:
                return next(reversed(versions.values()))
            found = versions.get(version) or _aliased(versions, version)
            if found is None:
                there = _listed(map(_labels, versions.values()))
                raise ModelNotFound(f"model '{name}' has no version {shorten(version)} here; there is {there}")
            return found

    def list(self) -> tuple[Loaded, ...]:
        """All models, by name and version."""
        with self._lock:
            return tuple(loaded for _, versions in sorted(self._models.items()) for loaded in versions.values())


def _aliased(versions: Mapping[str, Loaded], alias: str) -> Loaded | None:
    return next((loaded for loaded in versions.values() if alias in loaded.spec.aliases), None)


def _labels(loaded: Loaded) -> str:
    """`2`, or with its aliases `2 (prod, stable)`."""
    spec = loaded.spec
    return f"{spec.version} ({', '.join(spec.aliases)})" if spec.aliases else spec.version


def _listed(names: Iterable[str]) -> str:
    names = [*names]
    if not names:
        return "none"
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
