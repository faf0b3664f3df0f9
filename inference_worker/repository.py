"""From a path to the models that are declared there. Loads none of them."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path

from common.errors import ConfigError
from common.versions import version_order
from inference_worker.code import import_file
from inference_worker.manifest import parse_declaration, parse_toml
from inference_worker.model import declaration_of
from inference_worker.spec import MANIFEST, ModelSpec, check_apart

LAYOUT = f"a .py file, or a folder of <name>/<version>/{MANIFEST}"


def discover(path: Path) -> list[ModelSpec]:
    """The models at `path`, by name and version: a .py file, a model's folder, or one up to two levels above such.

    Raises ConfigError where there is none, or where a declaration is wrong.
    """
    if path.is_dir():
        specs = [_read(manifest) for manifest in _manifests(path)]
    elif path.suffix == ".py" and path.is_file():
        specs = list(_declared_in(path))
    else:
        raise ConfigError(f"there are no models at {path}; expected {LAYOUT}")
    return _in_order(path, specs)


def _manifests(folder: Path) -> list[Path]:
    """The manifests in a version's folder, else in those of a model's versions, else in those of many models."""
    for pattern in (MANIFEST, f"*/{MANIFEST}", f"*/*/{MANIFEST}"):
        if found := sorted(folder.glob(pattern)):
            return found
    raise ConfigError(f"there are no models in {folder}; expected {LAYOUT}")


def _read(manifest: Path) -> ModelSpec:
    folder = manifest.parent.resolve()
    try:
        text = manifest.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{manifest} cannot be read: {error}") from error
    return parse_toml(text, str(manifest), folder.parent.name, folder.name, folder)


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


def _in_order(path: Path, specs: list[ModelSpec]) -> list[ModelSpec]:
    if not specs:
        raise ConfigError(f"{path} declares no model; put @model over a function, or define a subclass of Model")
    specs.sort(key=lambda spec: (spec.name, version_order(spec.version)))
    for _, versions in itertools.groupby(specs, key=lambda spec: spec.name):
        for one, other in itertools.combinations(versions, 2):
            _check_apart(path, one, other)
    return specs


def _check_apart(path: Path, one: ModelSpec, other: ModelSpec) -> None:
    try:
        check_apart(one, other)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
