"""A backend with the stages of [processing] around it, its errors in one line each, and its digest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import ConfigError, InferenceError, ModelError
from common.tensor import Array
from common.text import describe
from inference_worker.backends import BackendKind, backend_class
from inference_worker.backends.base import Backend, Context, Finish, Landed, ModelRequest
from inference_worker.models.code import imported_files, load_object, python_file
from inference_worker.models.foreign import is_failure
from inference_worker.models.spec import STAGES, ModelSpec
from inference_worker.models.trust import check_trust
from inference_worker.models.weights import PACKAGE, digest, files_in, resolve
from inference_worker.pipeline.crew import Crew
from inference_worker.pipeline.stage_process import load_stages
from inference_worker.pipeline.stages import Stage


class Pipeline(Backend):
    """What `open_model` returns. The exception of a library or of a model's code is the `__cause__` of ours."""

    def __init__(self, kind: BackendKind) -> None:
        self._backend: Backend = backend_class(kind)()
        self._preprocess = self._backend.preprocess
        self._postprocess = self._backend.postprocess
        self._own: Collection[str] = ()
        self._name = ""
        self._crews: list[Crew] = []

    def load(self, context: Context) -> None:
        self._name = f"{context.spec.name}:{context.spec.version}"
        try:
            check_trust(context.spec)
            self._add_stages(context)
            self._backend.load(context)
            self.depth = self._backend.depth
            self.weights = digest(files_of(context.spec))
        except BaseException as error:
            self._close_stages()
            if isinstance(error, ConfigError):
                raise ConfigError(f"model '{self._name}': {error}") from error
            if isinstance(error, InferenceError):
                raise
            raise self._failed("load", error) from error

    def infer(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        try:
            return self._backend.infer(batch)
        except InferenceError:
            raise
        except BaseException as error:
            raise self._failed("infer", error) from error

    def begin(self, batch: Mapping[str, Array]) -> Finish:
        try:
            return partial(self._finish, self._backend.begin(batch))
        except InferenceError:
            raise
        except BaseException as error:
            raise self._failed("infer", error) from error

    def _finish(self, finish: Finish) -> Landed:
        try:
            return finish()
        except InferenceError:
            raise
        except BaseException as error:
            raise self._failed("infer", error) from error

    def preprocess(self, request: ModelRequest) -> Mapping[str, Array | list[Array]]:
        try:
            return self._preprocess(request)
        except InferenceError:
            raise
        except BaseException as error:
            raise self._failed("preprocess", error) from error

    def postprocess(self, outputs: Mapping[str, Array], request: ModelRequest) -> Mapping[str, Array]:
        try:
            return self._postprocess(outputs, request)
        except InferenceError:
            raise
        except BaseException as error:
            raise self._failed("postprocess", error) from error

    def has_stage(self, name: str) -> bool:
        return name in self._own or self._backend.has_stage(name)

    def close(self) -> None:
        self._close_stages()
        self._backend.close()

    def _close_stages(self) -> None:
        for stage in self.stages.values():
            stage.close()
        for crew in self._crews:
            crew.close()

    def _add_stages(self, context: Context) -> None:
        spec = context.spec
        if "code" in spec.processing:
            methods = _methods_here(context)
            for name, limits in spec.stages.items():
                if limits.processes:
                    crew = Crew(context, name, limits.workers, lambda: digest(files_of(spec)) == self.weights)
                    self._crews.append(crew)
                    crew.start()
                    methods[name] = crew.call
            self._own = methods.keys()
            self._preprocess = methods.get("preprocess", self._preprocess)
            self._postprocess = methods.get("postprocess", self._postprocess)
        self.stages = {name: Stage(f"{name} of {self._name}", limits.workers) for name, limits in spec.stages.items()}

    def _failed(self, step: str, error: BaseException) -> BaseException:
        """What to raise for it."""
        if not is_failure(error):
            return error
        return ModelError(f"{step} of model '{self._name}' failed: {describe(error)}")

    def __repr__(self) -> str:
        return f"Pipeline({self._name or 'nothing loaded'}, {type(self._backend).__name__})"


def _methods_here(context: Context) -> dict[str, Any]:
    """The stages of processing.code that run in this process. Where all run in their own, none is made here."""
    spec = context.spec
    code, apart = spec.processing["code"], [name for name, limits in spec.stages.items() if limits.processes]
    made = load_object(code, spec.folder)
    if apart and isinstance(made, type) and not any(hasattr(made, name) for name in STAGES if name not in apart):
        return {}
    stages = load_stages(context)
    methods = {name: getattr(stages, name) for name in STAGES if hasattr(stages, name)}
    if not methods:
        raise ConfigError(f"processing.code '{code}' defines neither of the methods {' and '.join(STAGES)}")
    return methods


def files_of(spec: ModelSpec) -> Iterator[tuple[str, Path]]:
    """(label, path) of all that a loaded model's results depend on, as far as files tell."""
    file = python_file(spec)
    if file is not None:
        # Its folder may hold anything: of that only what the file imports counts.
        yield from imported_files(resolve(file.name, spec.folder))
    elif spec.folder is not None:
        yield from files_in(spec.folder)
    for reference in (*spec.options.values(), *spec.processing.values()):
        if isinstance(reference, str) and reference.startswith(PACKAGE):
            yield reference, resolve(reference, None)
