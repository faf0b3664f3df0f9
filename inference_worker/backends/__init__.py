"""The backends by name, and how a model is opened with one. Importing this loads none of their libraries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from common.errors import ConfigError

if TYPE_CHECKING:
    from inference_worker.backends.base import Backend
    from inference_worker.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class BackendKind:
    """Where a backend is, and what it takes.

    `extra` is the one of this package that installs its library. `options` are the keys of its table in
    model.toml; None: `code`, and whatever that code wants to know.
    """

    module: str
    name: str
    extra: str
    options: tuple[str, ...] | None


BACKENDS: Mapping[str, BackendKind] = {
    "torch": BackendKind(
        "inference_worker.backends.torch",
        "TorchBackend",
        "torch",
        ("file", "code", "weights", "arguments", "dtype", "compile", "channels_last"),
    ),
    "onnx": BackendKind("inference_worker.backends.onnx", "OnnxBackend", "onnx", ("file",)),
    "python": BackendKind("inference_worker.backends.python", "PythonBackend", "worker", None),
}


def backend_class(kind: BackendKind) -> type[Backend]:
    """The backend, with its library imported. Raises ConfigError where that is not installed."""
    try:
        found: type[Backend] = getattr(import_module(kind.module), kind.name)
    except ModuleNotFoundError as error:
        install = f"pip install 'inference-worker[{kind.extra}]'"
        raise ConfigError(f"{kind.name} needs the package '{error.name}', which is not there; {install}") from error
    return found


def open_model(spec: ModelSpec, device: str, threads: int) -> Backend:
    """`spec`'s model, loaded on `device` ("cpu", "cuda:0"), using up to `threads` CPU threads.

    Raises ConfigError where a file, an option or a package is wrong or missing, ModelError where the
    model's own code fails while it loads.
    """
    # Imported here: whoever only lists models needs none of it.
    from inference_worker.backends.base import Context
    from inference_worker.backends.pipeline import Pipeline

    pipeline = Pipeline(BACKENDS[spec.backend])
    pipeline.load(Context(spec, device, threads))
    return pipeline
