"""A backend with the stages of [processing] around it, its errors in one line each, and its digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from common.errors import ConfigError, InferenceError, ModelError
from common.tensor import Array
from inference_worker.backends import BackendKind, backend_class
from inference_worker.backends.base import Backend, Context, ModelRequest, describe
from inference_worker.code import imported_files, load_object
from inference_worker.spec import MANIFEST, ModelSpec
from inference_worker.weights import PACKAGE, digest, files_in, resolve

STAGES = ("preprocess", "postprocess")


class Pipeline(Backend):
    """What `open_model` returns. The exception of a library or of a model's code is the `__cause__` of ours."""

    def __init__(self, kind: BackendKind) -> None:
        self._backend: Backend = backend_class(kind)()
        self._preprocess = self._backend.preprocess
        self._postprocess = self._backend.postprocess
        self._name = ""

    def load(self, context: Context) -> None:
        self._name = f"{context.spec.name}:{context.spec.version}"
        try:
            self._add_stages(context)
            self._backend.load(context)
            self.weights = digest(_files_of(context.spec))
        except ConfigError as error:
            raise ConfigError(f"model '{self._name}': {error}") from error
        except InferenceError:
            raise
        except (Exception, SystemExit) as error:
            raise self._failed("load", error) from error

    def infer(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            return self._backend.infer(batch)
        except InferenceError:
            raise
        except (Exception, SystemExit) as error:
            raise self._failed("infer", error) from error

    def preprocess(self, request: ModelRequest) -> Mapping[str, Array | list[Array]]:
        try:
            return self._preprocess(request)
        except InferenceError:
            raise
        except (Exception, SystemExit) as error:
            raise self._failed("preprocess", error) from error

    def postprocess(self, outputs: Mapping[str, Array], request: ModelRequest) -> Mapping[str, Array]:
        try:
            return self._postprocess(outputs, request)
        except InferenceError:
            raise
        except (Exception, SystemExit) as error:
            raise self._failed("postprocess", error) from error

    def close(self) -> None:
        self._backend.close()

    def _add_stages(self, context: Context) -> None:
        code = context.spec.processing.get("code")
        if code is None:
            return
        stage = load_object(code, context.spec.folder)()
        if not any(hasattr(stage, name) for name in STAGES):
            raise ConfigError(f"processing.code '{code}' defines neither of the methods {' and '.join(STAGES)}")
        if hasattr(stage, "load"):
            stage.load(context)
        self._preprocess = getattr(stage, "preprocess", self._preprocess)
        self._postprocess = getattr(stage, "postprocess", self._postprocess)

    def _failed(self, step: str, error: BaseException) -> ModelError:
        return ModelError(f"{step} of model '{self._name}' failed: {describe(error)}")

    def __repr__(self) -> str:
        return f"Pipeline({self._name or 'nothing loaded'}, {type(self._backend).__name__})"


def _files_of(spec: ModelSpec) -> Iterator[tuple[str, Path]]:
    """(label, path) of all that a loaded model's results depend on, as far as files tell."""
    if _is_python_file(spec):
        yield from imported_files(resolve(spec.options["code"].rpartition(":")[0], spec.folder))
    elif spec.folder is not None:
        yield from files_in(spec.folder)
    for reference in (*spec.options.values(), *spec.processing.values()):
        if isinstance(reference, str) and reference.startswith(PACKAGE):
            yield reference, resolve(reference, None)


def _is_python_file(spec: ModelSpec) -> bool:
    """Declared in Python, its folder may hold anything: of that only what the file imports counts."""
    return "code" in spec.options and spec.folder is not None and not (spec.folder / MANIFEST).is_file()
