"""A model's Python file, imported under a name of its own: two models may both have a model.py."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from pathlib import Path
from threading import RLock
from types import CodeType, ModuleType
from typing import Any

from common.errors import ConfigError
from common.text import describe
from inference_worker.models.foreign import is_failure
from inference_worker.models.spec import MANIFEST, ModelSpec
from inference_worker.models.weights import file_state, resolve

_PREFIX = "inference_worker_model_"
#: How often a file was imported anew.
_renewed: dict[Path, int] = {}
#: The state of each module's file when it was read.
_read: dict[str, tuple[int, ...]] = {}
#: Two models that load at once may import one file: the second must not see it half-made.
_importing: dict[Path, RLock] = {}


def load_object(reference: str, folder: Path | None) -> Any:
    """What `file.py:Name` names, the file being in `folder`. Raises ConfigError where it is not there."""
    file, _, name = reference.rpartition(":")
    module = import_file(resolve(file, folder))
    try:
        return getattr(module, name)
    except AttributeError:
        raise ConfigError(f"{module.__file__} defines no '{name}', which '{reference}' refers to") from None


def import_file(path: Path) -> ModuleType:
    """The module of a file, imported again where that, or a file beside it that it imported, is another one now.

    It is the only module of a package of its own, whose path is the file's folder: `from .other import x`
    finds other.py beside it. Raises ConfigError with the line where the import fails.
    """
    path = path.resolve()
    with _importing.setdefault(path, RLock()):
        return _import_file(path)


def _import_file(path: Path) -> ModuleType:
    if path.suffix != ".py":
        raise ConfigError(f"{path} is no Python file; its name must end in .py")
    if _has_changed(path):
        _renew(path)
    name = f"{_package(path)}.{path.stem.replace('.', '_')}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _SourceLoader(name, str(path))
    spec = ModuleSpec(name, loader, origin=str(path))
    spec.has_location = True
    _make_package(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not is_failure(error):
            raise
        place = f"{path}{_line(error, path)}"
        raise ConfigError(f"{place} cannot be imported: {describe(error)}{_hint(error, path)}") from error
    return module


def python_file(spec: ModelSpec) -> Path | None:
    """The Python file that declares a model, whether or not it is there; None for one that a model.toml declares."""
    if spec.folder is None or "code" not in spec.options or (spec.folder / MANIFEST).is_file():
        return None
    return spec.folder / str(spec.options["code"]).rpartition(":")[0]


def imported_files(path: Path) -> Iterator[tuple[str, Path]]:
    """(label, path) of a file that was imported and of those beside it that it imported so far."""
    folder = path.resolve().parent
    for name in _modules(path.resolve()):
        file = sys.modules[name].__file__
        if file:
            yield Path(file).relative_to(folder).as_posix(), Path(file)


def _package(path: Path) -> str:
    digest = hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()
    return f"{_PREFIX}{digest}_{_renewed.get(path, 0)}"


def _modules(path: Path) -> list[str]:
    prefix = _package(path) + "."
    return [name for name in list(sys.modules) if name.startswith(prefix)]


def _has_changed(path: Path) -> bool:
    return any(name in _read and _read[name] != _state(name) for name in _modules(path))


def _state(name: str) -> tuple[int, ...]:
    """Of a module's file as it is now; empty where there is none any more."""
    try:
        return file_state(Path(str(sys.modules[name].__file__)))
    except OSError:
        return ()


def _renew(path: Path) -> None:
    """The next import makes a new package: models that run keep the old one, by which they may import more."""
    _renewed[path] = _renewed.get(path, 0) + 1


class _SourceLoader(SourceFileLoader):
    """Compiles the source each time: Python's cache of bytecode takes one changed within the second for the old one."""

    def get_code(self, fullname: str) -> CodeType:
        path = Path(self.path)
        _read[fullname] = file_state(path)
        code: CodeType = self.source_to_code(self.get_data(self.path), path)
        return code


class _Finder:
    """Finds what a model's file imports from beside it."""

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(_PREFIX) or path is None:
            return None
        loaders = ((_SourceLoader, SOURCE_SUFFIXES), (ExtensionFileLoader, EXTENSION_SUFFIXES))
        found = (FileFinder(folder, *loaders).find_spec(name) for folder in path)
        return next((spec for spec in found if spec is not None), None)


sys.meta_path.insert(0, _Finder)


def _make_package(path: Path) -> None:
    package = ModuleType(_package(path), f"Made up for {path}")
    package.__path__ = [str(path.parent)]
    sys.modules[package.__name__] = package


def _line(error: BaseException, path: Path) -> str:
    """`:12`, the line of the file that was running, or that is no Python."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f":{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f":{lines[-1]}" if lines else ""


def _hint(error: BaseException, path: Path) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and (path.parent / f"{error.name}.py").is_file():
        return f"; the file beside it is imported as '.{error.name}'"
    return ""
