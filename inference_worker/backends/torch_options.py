"""How a torch model runs: the options `dtype`, `compile` and `channels_last` of model.toml's table [torch]."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from inference_worker.backends.torch_int8 import quantize_linears

_NARROW = {"fp16": torch.float16, "bf16": torch.bfloat16}
#: Those that change the module itself, which a file does not let us.
_OF_CODE = ("weights", "arguments", "dtype", "channels_last")


@dataclass(frozen=True, slots=True)
class Runtime:
    """`dtype` is fp32 (whatever the weights are), fp16, bf16, or int8 (of the linear layers, on a CPU)."""

    dtype: str = "fp32"
    compile: bool = False
    channels_last: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Runtime:
        return cls(options.get("dtype", "fp32"), options.get("compile", False), options.get("channels_last", False))

    @property
    def narrow(self) -> torch.dtype | None:
        """The floats that it computes in, where they are not those of the weights."""
        return _NARROW.get(self.dtype)

    def converted(self, module: nn.Module, device: torch.device) -> nn.Module:
        """`module` in this dtype and memory format. Raises ConfigError where it or the device does not allow it."""
        if self.dtype == "int8":
            if device.type != "cpu":
                raise ConfigError(f"torch.dtype 'int8' is for CPUs; on '{device}' use 'fp16' or 'bf16'")
            quantize_linears(module)
        if self.narrow is not None:
            module = module.to(self.narrow)
        if self.channels_last:
            if not any(parameter.ndim == 4 for parameter in module.parameters()):
                raise ConfigError("torch.channels_last is for modules with convolutions of images; this one has none")
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module

    def compiled(self, module: Any, device: torch.device) -> Any:
        """`module` as torch.compile makes it at its first run. Raises ConfigError where its tools are not there."""
        if not self.compile:
            return module
        check_compiler(os.environ)
        # Sizes differ from batch to batch: one program for all, not one for each.
        return torch.compile(module, dynamic=True)

    def prepared(self, tensor: Tensor) -> Tensor:
        """An input in this dtype and memory format; integers stay what they are."""
        if self.narrow is not None and tensor.is_floating_point():
            tensor = tensor.to(self.narrow)
        if self.channels_last and tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor


def check_options(options: Mapping[str, Any]) -> None:
    """Raises ConfigError where options exclude each other."""
    if ("code" in options) == ("file" in options):
        raise ConfigError("[torch] must hold either file (.pt2 or .pt) or code ('model.py:Build')")
    extra = [name for name in _OF_CODE if name in options] if "file" in options else []
    if extra:
        why = "has its weights in it" if extra[0] in ("weights", "arguments") else "was saved as it is to run"
        raise ConfigError(f"torch.{extra[0]} goes with torch.code; torch.file {why}")
    if options.get("compile") and options.get("file", "").endswith(".pt"):
        raise ConfigError("torch.compile does not take TorchScript (.pt); export the model to .pt2, or use torch.code")
    if options.get("compile") and options.get("dtype") == "int8":
        raise ConfigError("torch.compile does not take the int8 layers of torch.dtype 'int8'; choose one of the two")


def check_compiler(environ: Mapping[str, str]) -> None:
    """Raises ConfigError where there is no C++ compiler, which torch.compile runs on the first batch."""
    wanted = environ.get("CXX", "")
    names = (wanted.split()[0],) if wanted.strip() else ("g++", "clang++", "c++")
    if not any(shutil.which(name, path=environ.get("PATH")) for name in names):
        raise ConfigError(
            f"torch.compile needs a C++ compiler, and there is no {' or '.join(names)} on the PATH; "
            "install one, or leave torch.compile out"
        )
