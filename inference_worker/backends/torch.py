"""PyTorch models: a module made by Python code, an exported program (.pt2), or TorchScript (.pt)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from common.errors import ConfigError, InvalidRequest, ModelError
from common.tensor import Array
from inference_worker.backends.base import Backend, Context, name_outputs, readable
from inference_worker.code import load_object
from inference_worker.spec import ModelSpec

#: Missing weights that an error lists; a wrong file lacks hundreds.
_MOST_LISTED = 3


class TorchBackend(Backend):
    """Options: `file`, or `code` with `weights` and `arguments`.

    A module made by code gets its inputs by name. A file gets them in order, since it takes no names:
    in the order of its own arguments where their names are the declared ones, else in declared order.
    """

    _module: Any = None

    def load(self, context: Context) -> None:
        torch.set_num_threads(context.threads)
        self._spec = context.spec
        self._device = _device(context.device)
        self._order: list[str] | None = None
        self._bf16 = frozenset(one.name for one in context.spec.inputs if one.dtype == "BF16")
        _check_options(context.spec)
        if "code" in context.spec.options:
            self._module = _build(context).to(self._device)
        else:
            self._module, arguments = _open_file(context, self._device)
            self._order = _argument_order(context.spec, arguments)

    def infer(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        with torch.inference_mode():
            tensors = {name: self._tensor(name, array) for name, array in batch.items()}
            if self._order is None:
                result = self._module(**tensors)
            else:
                result = self._module(*_in_order(self._spec, self._order, tensors))
            return {name: _array(name, value) for name, value in name_outputs(self._spec, result).items()}

    def close(self) -> None:
        self._module = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _tensor(self, name: str, array: Array) -> Tensor:
        if array.dtype == object:
            raise ModelError(f"input '{name}' holds strings, which torch does not take; add a [processing] stage")
        if not (array.flags.writeable and array.flags.c_contiguous):
            # A read-only array is a view of the request's own bytes, and a module may write into its inputs.
            array = array.copy()
        tensor = torch.from_numpy(array).to(self._device)
        return tensor.bfloat16() if name in self._bf16 else tensor


def _device(name: str) -> torch.device:
    """Raises ConfigError for a device that torch does not know or see."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"torch knows no device '{name}'; use cpu or cuda:0") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"there is no device '{name}': torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def _check_options(spec: ModelSpec) -> None:
    options = spec.options
    if ("code" in options) == ("file" in options):
        raise ConfigError("[torch] must hold either file (.pt2 or .pt) or code ('model.py:Build')")
    extra = sorted(options.keys() & {"weights", "arguments"}) if "file" in options else []
    if extra:
        raise ConfigError(f"torch.{extra[0]} goes with torch.code; torch.file has its weights in it")


def _build(context: Context) -> nn.Module:
    """The module that the options' code makes, with its weights."""
    options = context.spec.options
    module = load_object(options["code"], context.spec.folder)(**options.get("arguments", {}))
    if not isinstance(module, nn.Module):
        raise ConfigError(f"torch.code '{options['code']}' must make an nn.Module; got a {type(module).__name__}")
    if "weights" in options:
        _load_weights(module, options["weights"], context.path(options["weights"]))
    return module.eval()


def _load_weights(module: nn.Module, reference: str, path: Path) -> None:
    """Put the file's tensors in the module's place: mapped, not copied, so that processes share their pages.

    What the file holds beside is passed over, such as the head of another task; what it lacks is an error.
    """
    with readable(reference):
        state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_state_dict(path)
        missing = module.load_state_dict(state, strict=False, assign=True).missing_keys
    if missing:
        more = f" and {len(missing) - _MOST_LISTED} more" if len(missing) > _MOST_LISTED else ""
        raise ConfigError(f"'{reference}' lacks the weights {', '.join(missing[:_MOST_LISTED])}{more}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return state


def _open_file(context: Context, device: torch.device) -> tuple[Any, list[str]]:
    """(what runs, the names of its arguments)"""
    reference = context.spec.options["file"]
    path = context.path(reference)
    if path.suffix == ".pt2":
        return _open_exported(reference, path, device)
    if path.suffix == ".pt":
        return _open_script(reference, path, device)
    raise ConfigError(f"torch.file must end in .pt2 (torch.export) or .pt (TorchScript); got '{reference}'")


def _open_exported(reference: str, path: Path, device: torch.device) -> tuple[Any, list[str]]:
    # A second of imports that other kinds of models do without.
    from torch.export import load
    from torch.export.passes import move_to_device_pass

    with readable(reference):
        program = load(path)
    if device.type != "cpu":
        program = move_to_device_pass(program, device)
    return program.module(), [str(name) for name in program.graph_signature.user_inputs]


def _open_script(reference: str, path: Path, device: torch.device) -> tuple[Any, list[str]]:
    with readable(reference), warnings.catch_warnings():
        # torch asks authors to export to .pt2 instead. Whoever has only the .pt can still serve it.
        warnings.simplefilter("ignore", DeprecationWarning)
        module = cast(Any, torch.jit.load)(path, map_location="cpu")
    arguments = [argument.name for argument in module.forward.schema.arguments[1:]]
    return module.eval().to(device), arguments


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


def _array(name: str, value: Any) -> Array:
    """An output as an array, on the CPU without a copy. BF16, which numpy lacks, becomes float32."""
    if not isinstance(value, Tensor):
        raise ModelError(f"output '{name}' must be a tensor; got a {type(value).__name__}")
    value = value.detach().cpu()
    array: Array = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return array
