"""The models that a process offers, by name, version and alias, whether or not they are in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from threading import Lock

from common.errors import ModelNotFound
from common.names import shorten
from common.versions import version_order
from inference_worker.backends.base import Backend
from inference_worker.models.foreign import is_failure
from inference_worker.models.spec import ModelSpec, check_apart

log = logging.getLogger(__name__)

#: Names listed in an error; a registry may hold hundreds.
MOST_LISTED = 10

#: (name, version)
Key = tuple[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model that can run."""

    spec: ModelSpec
    backend: Backend

    def close(self) -> None:
        """Close the backend. Where its code fails at that it is dropped, with a log line."""
        try:
            self.backend.close()
        except BaseException as error:
            if not is_failure(error):
                raise
            log.exception("model '%s:%s' did not close; it is dropped", self.spec.name, self.spec.version)


@dataclass(frozen=True, slots=True)
class Title:
    """A version that is offered. `weights` is the digest of all that its results depend on."""

    spec: ModelSpec
    weights: str

    @property
    def key(self) -> Key:
        return self.spec.name, self.spec.version


def key_of(spec: ModelSpec) -> Key:
    return spec.name, spec.version


class Registry:
    """Thread-safe. A version is found by itself and by its aliases, a model without either by its newest version."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: name -> version -> title, versions from old to new
        self._titles: dict[str, dict[str, Title]] = {}

    def replace(self, name: str, titles: Iterable[Title]) -> None:
        """Offer these versions of a model from now on, and no others.

        Raises ConfigError, and changes nothing, where two of them share a version or an alias.
        """
        titles = sorted(titles, key=lambda title: version_order(title.spec.version))
        for one, other in combinations(titles, 2):
            check_apart(one.spec, other.spec)
        with self._lock:
            if titles:
                self._titles[name] = {title.spec.version: title for title in titles}
            else:
                self._titles.pop(name, None)

    def get(self, name: str, version: str | None = None) -> Title:
        """A model by a version or an alias of one, by default its newest. Raises ModelNotFound naming what is there."""
        # Without the lock, since this runs for each request: a model's versions are replaced and never changed.
        versions = self._titles.get(name)
        if versions is None:
            there = listed(sorted(self._titles.copy()))
            raise ModelNotFound(f"no model {shorten(name)} is served here; there is {there}")
        if version is None:
            return next(reversed(versions.values()))
        found = versions.get(version) or _aliased(versions, version)
        if found is None:
            there = listed(map(_labels, versions.values()))
            raise ModelNotFound(f"model '{name}' has no version {shorten(version)} here; there is {there}")
        return found

    def versions(self, name: str) -> tuple[Title, ...]:
        """What is offered of a model, from old to new; empty where it is not."""
        with self._lock:
            return tuple(self._titles.get(name, {}).values())

    def list(self) -> tuple[Title, ...]:
        """All that is offered, by name and version."""
        with self._lock:
            return tuple(title for _, versions in sorted(self._titles.items()) for title in versions.values())


def listed(names: Iterable[str]) -> str:
    """At most ten names, for a message."""
    names = [*names]
    if not names:
        return "none"
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _aliased(versions: Mapping[str, Title], alias: str) -> Title | None:
    return next((title for title in versions.values() if alias in title.spec.aliases), None)


def _labels(title: Title) -> str:
    """`2`, or with its aliases `2 (prod, stable)`."""
    spec = title.spec
    return f"{spec.version} ({', '.join(spec.aliases)})" if spec.aliases else spec.version
