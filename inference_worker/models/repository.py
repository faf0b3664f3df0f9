"""From a path or a URL to the models that are declared there, and to their files. Loads none of them."""

from __future__ import annotations

import inspect
import itertools
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import ConfigError
from common.versions import version_order
from inference_worker.model import declaration_of
from inference_worker.models.code import import_file
from inference_worker.models.manifest import parse_declaration, parse_toml
from inference_worker.models.scope import Scope, everything, is_in
from inference_worker.models.spec import MANIFEST, ModelSpec, Origin, check_apart
from inference_worker.models.trust import check_trust
from inference_worker.remote.location import is_url
from inference_worker.remote.progress import Progress, silent

if TYPE_CHECKING:
    from inference_worker.remote.options import RemoteOptions
    from inference_worker.remote.snapshot import Snapshot

log = logging.getLogger(__name__)

LAYOUT = f"a .py file, or a folder of <name>/<version>/{MANIFEST}"


def models_at(place: str, options: RemoteOptions | None = None, scope: Scope = everything) -> list[ModelSpec]:
    """The models at a path, or at a URL as it is now: of that only the declarations are fetched.

    `options` are those of the environment by default. What is broken outside of `scope` is passed over. Raises
    ConfigError, and RepositoryUnavailable where a store does not answer and the cache holds nothing of it.
    """
    if not is_url(place):
        return discover(Path(place), scope=scope)
    from inference_worker.remote.options import remote_options

    options = options or remote_options()
    snapshot = open_repository(place, options)
    snapshot.fetch(_is_declaration)
    return discover(snapshot.folder, Origin(snapshot.name, options.trust_code, snapshot), scope)


def open_repository(url: str, options: RemoteOptions) -> Snapshot:
    """A remote repository in the host's cache. Raises ConfigError, RepositoryUnavailable."""
    # Here, and not above: whoever serves local models needs none of its packages.
    from inference_worker.remote.cache import Cache
    from inference_worker.remote.snapshot import open_snapshot

    return open_snapshot(url, Cache(options.cache, options.most_bytes))


def fetch_model(spec: ModelSpec, progress: Progress = silent) -> None:
    """Have a model's files on this host, each verified. Nothing to do for a local one.

    Raises ConfigError for one that would run code of somebody who is not trusted, before its weights are fetched.
    """
    check_trust(spec)
    if spec.origin.snapshot is not None and spec.folder is not None:
        spec.origin.snapshot.fetch_folder(spec.folder, progress)


def discover(
    path: Path,
    origin: Origin = Origin(),  # noqa: B008 (a frozen value)
    scope: Scope = everything,
) -> list[ModelSpec]:
    """The models at `path`, by name and version: a .py file, a model's folder, or one up to two levels above such.

    Raises ConfigError where there is none, or where a declaration is wrong; one outside of `scope` is passed over with
    a log line. A .py file must be whole in any case: until it is imported nobody knows which models it declares.
    """
    if path.is_dir():
        specs = list(_read_all(_manifests(path, origin), path, origin, scope))
    elif path.suffix == ".py" and path.is_file():
        specs = list(_declared_in(path))
        if not specs:
            raise ConfigError(f"{path} declares no model; put @model over a function, or define a subclass of Model")
    else:
        raise ConfigError(f"there are no models at {origin.url or path}; expected {LAYOUT}")
    return _in_order(origin.url or str(path), specs, scope)


def _manifests(folder: Path, origin: Origin) -> list[Path]:
    """The manifests in a version's folder, else in those of a model's versions, else in those of many models."""
    for pattern in (MANIFEST, f"*/{MANIFEST}", f"*/*/{MANIFEST}"):
        if found := sorted(folder.glob(pattern)):
            return found
    if closed := _closed(folder):
        raise ConfigError(f"this user may not read {', '.join(closed)}: give it the right to (chmod o+rx)")
    raise ConfigError(f"there are no models in {origin.url or folder}; expected {LAYOUT}")


def _closed(folder: Path) -> list[str]:
    """Folders in which manifests could be and that cannot be looked into."""
    places = (folder, *folder.glob("*"), *folder.glob("*/*"))
    return sorted(str(one) for one in places if one.is_dir() and not os.access(one, os.R_OK | os.X_OK))


def _is_declaration(path: str) -> bool:
    """Whether `_manifests` may find a file there."""
    *folders, name = path.split("/")
    return name == MANIFEST and len(folders) <= 2


def _read_all(manifests: list[Path], root: Path, origin: Origin, scope: Scope) -> Iterator[ModelSpec]:
    for manifest in manifests:
        try:
            yield _read(manifest, root, origin)
        except ConfigError as error:
            folder = manifest.parent.resolve()
            if scope(folder.parent.name, folder.name, ()):
                raise
            log.warning("%s; this version is passed over", error)


def _read(manifest: Path, root: Path, origin: Origin) -> ModelSpec:
    folder = manifest.parent.resolve()
    try:
        text = manifest.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{manifest} cannot be read: {error}") from error
    shown = f"{origin.url}/{manifest.relative_to(root).as_posix()}" if origin.url else str(manifest)
    return replace(parse_toml(text, shown, folder.parent.name, folder.name, folder), origin=origin)


def _declared_in(path: Path) -> Iterator[ModelSpec]:
    """The models of a Python file: not what it imports from elsewhere, and no abstract class."""
    module = import_file(path)
    file = path.resolve()
    seen: set[int] = set()
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__ or inspect.isabstract(value):
            continue
        declared = declaration_of(value)
        if declared is not None and id(value) not in seen:
            seen.add(id(value))
            yield parse_declaration(declared, f"{path}: {name}", f"{file.name}:{name}", file.parent)


def _in_order(place: str, specs: list[ModelSpec], scope: Scope) -> list[ModelSpec]:
    specs.sort(key=lambda spec: (spec.name, version_order(spec.version)))
    for _, versions in itertools.groupby(specs, key=lambda spec: spec.name):
        for one, other in itertools.combinations(versions, 2):
            _check_apart(place, one, other, scope)
    return specs


def _check_apart(place: str, one: ModelSpec, other: ModelSpec, scope: Scope) -> None:
    try:
        check_apart(one, other)
    except ConfigError as error:
        if is_in(scope, one) or is_in(scope, other):
            raise ConfigError(f"{place}: {error}") from error
        log.warning("%s: %s", place, error)
