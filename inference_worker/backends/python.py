"""Models in plain Python: a function, or a subclass of Model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np

from common.errors import ConfigError, InvalidRequest
from common.protocol import BARE_INPUT
from common.tensor import Array
from inference_worker.backends.base import Backend, Context, ModelRequest, name_outputs
from inference_worker.model import Model
from inference_worker.models.code import load_object
from inference_worker.models.spec import ModelSpec
from inference_worker.outputs import to_array


class PythonBackend(Backend):
    """Runs what `code` names; a function gets inputs as arguments, a Model as a map."""

    def load(self, context: Context) -> None:
        spec = context.spec
        self._spec = spec
        self._dtypes = {one.name: one.dtype for one in spec.outputs}
        self._only = spec.outputs[0].name if len(spec.outputs) == 1 else None
        self._model = _model(load_object(spec.options["code"], spec.folder), spec)
        self._model.load(context)

    def infer(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        result = self._model.infer(batch)
        if type(result) is np.ndarray and self._only is not None:
            return {self._only: result}
        outputs = name_outputs(self._spec, result)
        return {name: to_array(self._spec, name, value, self._dtypes.get(name)) for name, value in outputs.items()}

    def preprocess(self, request: ModelRequest) -> Mapping[str, Array | list[Array]]:
        return self._model.preprocess(request)

    def postprocess(self, outputs: Mapping[str, Array], request: ModelRequest) -> Mapping[str, Array]:
        return self._model.postprocess(outputs, request)

    def has_stage(self, name: str) -> bool:
        return getattr(type(self._model), name) is not getattr(Model, name)

    def close(self) -> None:
        self._model.close()


class FunctionModel(Model):
    """A function as a Model: its parameters are the inputs, those with a default may be left out.

    Where it has just one, a bare value is for that one.
    """

    def __init__(self, function: Callable[..., Any], spec: ModelSpec) -> None:
        self._function = function
        self._spec = spec
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        self._known = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
        self._required = {one.name for one in parameters if one.name in self._known and one.default is one.empty}
        self._takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)

    def load(self, context: Context) -> None:
        # With a stage before it the declared inputs are that stage's, which makes others of them.
        declared = set() if "code" in self._spec.processing else {one.name for one in self._spec.inputs}
        if declared and not self._takes(declared):
            raise ConfigError(
                f"the function '{self._function.__name__}' takes {self._signature}; "
                f"the declared inputs are {', '.join(sorted(declared))}"
            )

    def infer(self, batch: Mapping[str, Array]) -> Any:
        if self._takes(batch.keys()):
            return self._function(**batch)
        if len(self._known) == 1 and batch.keys() == {BARE_INPUT}:
            return self._function(**dict.fromkeys(self._known, batch[BARE_INPUT]))
        raise InvalidRequest(f"model '{self._spec.name}' takes the inputs {self._signature}; got {', '.join(batch)}")

    def _takes(self, names: Set[str]) -> bool:
        return self._required <= names and (self._takes_any or names <= self._known)


def _model(code: Any, spec: ModelSpec) -> Model:
    """What `code` is, as a Model of its own. Raises ConfigError for anything but a function or a Model class."""
    if isinstance(code, type) and issubclass(code, Model):
        if inspect.isabstract(code):
            raise ConfigError(f"the class {code.__name__} is abstract: it does not define infer")
        return code()
    if isinstance(code, type) or not callable(code):
        raise ConfigError(f"'{spec.options['code']}' must be a function or a subclass of inference_worker.Model")
    return FunctionModel(code, spec)
