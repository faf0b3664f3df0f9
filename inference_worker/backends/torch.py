"""PyTorch models: a module made by Python code, an exported program (.pt2), or TorchScript (.pt)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import ConfigError, InvalidRequest, ModelError
from common.tensor import Array
from inference_worker.backends.base import Backend, Context, Finish, Landed, name_outputs
from inference_worker.backends.torch_files import load_weights, open_file
from inference_worker.backends.torch_options import Runtime, check_options
from inference_worker.devices.accelerator import Accelerator, Flight, Tensors, open_accelerator
from inference_worker.models.code import load_object
from inference_worker.models.residency import give_back
from inference_worker.models.spec import ModelSpec


class TorchBackend(Backend):
    """Options: `file`, or `code` with `weights` and `arguments`; `dtype`, `compile` and `channels_last`.

    A module made by code gets its inputs by name. A file gets them in order, since it takes no names:
    in the order of its own arguments where their names are the declared ones, else in declared order.
    """

    _module: Any = None
    _accelerator: Accelerator | None = None

    def load(self, context: Context) -> None:
        torch.set_num_threads(context.threads)
        check_options(context.spec.options)
        self._spec = context.spec
        self._runtime = Runtime.of(context.spec.options)
        self._bf16 = frozenset(one.name for one in context.spec.inputs if one.dtype == "BF16")
        self._accelerator = accelerator = open_accelerator(context.device)
        self.depth = accelerator.depth
        module, order = _build(context, accelerator, self._runtime)
        self._module = self._runtime.compiled(module, accelerator.device)
        self._order = None if order is None else _argument_order(context.spec, order)

    def infer(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        # Entered around the beginning too, since a compiled module is made for the mode of its first run.
        with torch.inference_mode():
            return self._arrays(self._flight(batch))

    def begin(self, batch: Mapping[str, Array]) -> Finish:
        with torch.inference_mode():
            return partial(self._landed, self._flight(batch))

    def close(self) -> None:
        self._module = None
        if self._accelerator is not None:
            self._accelerator.release()
            self._accelerator = None

    def _flight(self, batch: Mapping[str, Array]) -> Flight:
        if self._accelerator is None:
            raise ModelError(f"model '{self._spec.name}:{self._spec.version}' is closed. This is a bug.")
        return self._accelerator.begin(_numbers(batch), self._compute)

    def _landed(self, flight: Flight) -> Landed:
        with torch.inference_mode():
            return Landed(self._arrays(flight), flight.seconds)

    def _arrays(self, flight: Flight) -> dict[str, Array]:
        return {name: self._array(value) for name, value in flight.finish().items()}

    def _compute(self, inputs: Tensors) -> Tensors:
        tensors = {name: self._prepared(name, tensor) for name, tensor in inputs.items()}
        if self._order is None:
            result = self._module(**tensors)
        else:
            result = self._module(*_in_order(self._spec, self._order, tensors))
        return {name: _tensor(name, value) for name, value in name_outputs(self._spec, result).items()}

    def _prepared(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.bfloat16() if name in self._bf16 else self._runtime.prepared(tensor)

    def _array(self, value: Tensor) -> Array:
        # numpy lacks BF16, and what a model computes in halves for its own reasons is float32 to others.
        widened = value.dtype in (torch.bfloat16, self._runtime.narrow)
        array: Array = (value.float() if widened else value).numpy()
        return array


def _build(context: Context, accelerator: Accelerator, runtime: Runtime) -> tuple[Any, list[str] | None]:
    """(what runs, on its device; the names of its arguments, or None where it takes them by name)"""
    if "code" not in context.spec.options:
        return open_file(context, accelerator)
    module = runtime.converted(_made(context), accelerator.device)
    return accelerator.place(module), None


def _made(context: Context) -> nn.Module:
    """The module that the options' code makes, with its weights."""
    options = context.spec.options
    module = load_object(options["code"], context.spec.folder)(**options.get("arguments", {}))
    if not isinstance(module, nn.Module):
        raise ConfigError(f"torch.code '{options['code']}' must make an nn.Module; got a {type(module).__name__}")
    if "weights" in options:
        load_weights(module, options["weights"], context.path(options["weights"]))
        # Of the random weights that its constructor made.
        give_back()
    return module.eval()


def _argument_order(spec: ModelSpec, arguments: list[str]) -> list[str]:
    """The inputs' names in the order in which a file takes them. Raises ConfigError where their numbers differ."""
    declared = [one.name for one in spec.inputs]
    # With a stage before it the declared inputs are that stage's, and it names its arrays as the file does.
    if not declared or "code" in spec.processing or set(declared) == set(arguments):
        return arguments
    if len(declared) != len(arguments):
        raise ConfigError(
            f"inputs must be the {len(arguments)} that '{spec.options['file']}' takes ({', '.join(arguments)}); "
            f"{len(declared)} are declared"
        )
    return declared


def _in_order(spec: ModelSpec, order: list[str], tensors: Mapping[str, Tensor]) -> list[Tensor]:
    if tensors.keys() != set(order):
        raise InvalidRequest(f"model '{spec.name}' takes the inputs {', '.join(order)}; got {', '.join(tensors)}")
    return [tensors[name] for name in order]


def _numbers(batch: Mapping[str, Array]) -> Mapping[str, Array]:
    for name, array in batch.items():
        if array.dtype == object:
            raise ModelError(f"input '{name}' holds strings, which torch does not take; add a [processing] stage")
    return batch


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise ModelError(f"output '{name}' must be a tensor; got a {type(value).__name__}")
    return value.detach()
