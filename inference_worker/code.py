"""A model's Python file, imported under a name of its own: two models may both have a model.py."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from common.errors import ConfigError
from inference_worker.backends.base import describe
from inference_worker.weights import resolve


def load_object(reference: str, folder: Path | None) -> Any:
    """What `file.py:Name` names, the file being in `folder`. Raises ConfigError where it is not there."""
    file, _, name = reference.rpartition(":")
    module = import_file(resolve(file, folder))
    try:
        return getattr(module, name)
    except AttributeError:
        raise ConfigError(f"{module.__file__} defines no '{name}', which '{reference}' refers to") from None


def import_file(path: Path) -> ModuleType:
    """The module of a file, imported once per process. Raises ConfigError with the line where the import fails.

    It is the only module of a package of its own, whose path is the file's folder: `from .other import x`
    finds other.py beside it.
    """
    path = path.resolve()
    name = f"{_package(path)}.{path.stem.replace('.', '_')}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file; its name must end in .py")
    _make_package(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        place = f"{path}{_line(error, path)}"
        raise ConfigError(f"{place} cannot be imported: {describe(error)}{_hint(error, path)}") from error
    return module


def imported_files(path: Path) -> Iterator[tuple[str, Path]]:
    """(label, path) of a file that was imported and of those beside it that it imported so far."""
    folder = path.resolve().parent
    prefix = _package(path.resolve()) + "."
    for name, module in list(sys.modules.items()):
        if name.startswith(prefix) and module.__file__:
            file = Path(module.__file__)
            yield file.relative_to(folder).as_posix(), file


def _package(path: Path) -> str:
    return f"inference_worker_model_{hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()}"


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
