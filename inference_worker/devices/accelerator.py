"""The seam between a torch model and the device that it runs on: CPU, or one CUDA device with its streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from common.errors import ConfigError
from common.tensor import Array
from inference_worker.devices.faults import DeviceFailed, Fault, is_out_of_memory
from inference_worker.devices.memory import Memory, host_memory

Tensors = Mapping[str, Tensor]
Module = TypeVar("Module", bound=torch.nn.Module)


class Flight(ABC):
    """A batch on its way through the device. Another thread than the one that began it may finish it."""

    #: What the device spent on computing, once it is finished; None where that is what passed meanwhile.
    seconds: float | None = None

    @abstractmethod
    def finish(self) -> dict[str, Tensor]:
        """Its outputs, in the host's memory; waits until they are there. Raises what went wrong on the device."""


class Accelerator(ABC):
    """One device. Its errors are torch's own; devices/faults.py says what they mean."""

    #: Where tensors live.
    device: torch.device
    #: So many batches may be on their way at once: one computes while the next one's inputs travel.
    depth: int = 1

    @abstractmethod
    def memory(self) -> Memory:
        """Bytes that are free on the device now, and all that it has."""

    @abstractmethod
    def place(self, module: Module) -> Module:
        """`module` with its weights on the device."""

    @abstractmethod
    def begin(self, arrays: Mapping[str, Array], compute: Callable[[Tensors], Tensors]) -> Flight:
        """Copy `arrays` in, compute on them, copy what it gives out; where the device can, without waiting for it."""

    @abstractmethod
    def release(self) -> None:
        """Give memory back that nothing uses; a model was closed."""


class Landed(Flight):
    """Outputs that are there already."""

    def __init__(self, outputs: Tensors) -> None:
        self._outputs = dict(outputs)

    def finish(self) -> dict[str, Tensor]:
        return self._outputs


class Cpu(Accelerator):
    """The host itself: arrays become tensors without a copy, unless they are read-only views of a request."""

    def __init__(self, index: int = 0) -> None:
        self.device = torch.device("cpu")

    def memory(self) -> Memory:
        return host_memory()

    def place(self, module: Module) -> Module:
        return module

    def release(self) -> None:
        """The allocator gives it back by itself."""

    def begin(self, arrays: Mapping[str, Array], compute: Callable[[Tensors], Tensors]) -> Flight:
        return Landed(compute({name: torch.from_numpy(_writable(array)) for name, array in arrays.items()}))


class Cuda(Accelerator):
    """A CUDA device with a stream each for copies in, compute and copies out.

    While one batch computes, the next one's inputs and the last one's outputs travel: begin the next before you finish
    the first. Copies go through pinned memory, without which they would wait for each other.
    """

    depth = 2

    def __init__(self, index: int = 0) -> None:
        _check_cuda(index)
        self.device = torch.device("cuda", index)
        self._in, self._compute, self._out = _streams(self.device)

    def memory(self) -> Memory:
        return Memory(*torch.cuda.mem_get_info(self.device))

    def place(self, module: Module) -> Module:
        moved: Module = module.to(self.device)
        # Its weights were copied in the default stream, for which ours does not wait by itself.
        torch.cuda.synchronize(self.device)
        return moved

    def begin(self, arrays: Mapping[str, Array], compute: Callable[[Tensors], Tensors]) -> Flight:
        began, ended = (cast(Any, torch.cuda.Event)(enable_timing=True) for _ in range(2))
        try:
            outputs = self._run(self._copy_in(arrays), compute, began, ended)
            return _CudaFlight(*self._copy_out(outputs), began, ended)
        except Exception as error:
            if is_out_of_memory(error):
                # What the allocator keeps in pieces of other sizes may be what a smaller batch needs.
                torch.cuda.empty_cache()
            raise

    def release(self) -> None:
        torch.cuda.empty_cache()

    def _copy_in(self, arrays: Mapping[str, Array]) -> Tensors:
        with torch.cuda.stream(self._in):
            return {name: _pinned(array).to(self.device, non_blocking=True) for name, array in arrays.items()}

    def _run(self, inputs: Tensors, compute: Callable[[Tensors], Tensors], began: Any, ended: Any) -> Tensors:
        """`began` and `ended` are recorded around it: a wait for inputs or for the batch before is no part of it."""
        self._compute.wait_stream(self._in)
        with torch.cuda.stream(self._compute):
            for tensor in inputs.values():
                tensor.record_stream(self._compute)
            began.record(self._compute)
            outputs = compute(inputs)
            ended.record(self._compute)
            return outputs

    def _copy_out(self, outputs: Tensors) -> tuple[Tensors, Any]:
        """What the outputs will be in the host's memory, and the event after which they are."""
        self._out.wait_stream(self._compute)
        with torch.cuda.stream(self._out):
            for tensor in outputs.values():
                if tensor.is_cuda:
                    tensor.record_stream(self._out)
            landed = {name: _to_host(tensor) for name, tensor in outputs.items()}
            # Whoever waits for it sleeps: by default CUDA would look again and again, on a core that the host needs.
            there = cast(Any, torch.cuda.Event)(blocking=True)
            there.record(self._out)
        return landed, there


class _CudaFlight(Flight):
    def __init__(self, outputs: Tensors, there: Any, began: Any, ended: Any) -> None:
        self._outputs = dict(outputs)
        self._there = there
        self._began = began
        self._ended = ended

    def finish(self) -> dict[str, Tensor]:
        self._there.synchronize()
        self.seconds = self._began.elapsed_time(self._ended) / 1000
        return self._outputs


#: The kinds of device, each made of its number. Whoever has another kind adds it here before a model loads.
KINDS: MutableMapping[str, Callable[[int], Accelerator]] = {"cpu": Cpu, "cuda": Cuda}


def open_accelerator(name: str) -> Accelerator:
    """The device "cpu" or "cuda:0". Raises ConfigError for one that is not known, DeviceFailed for one that is gone."""
    kind, _, index = name.partition(":")
    if kind not in KINDS or not (index or "0").isdecimal():
        raise ConfigError(f"torch knows no device '{name}' here; use {' or '.join(KINDS)}, such as cuda:0")
    return KINDS[kind](int(index or 0))


@lru_cache
def _streams(device: torch.device) -> tuple[Any, Any, Any]:
    """For copies in, compute and copies out. One set for all models, whose batches thus run one after the other."""
    return tuple(cast(Any, torch.cuda.Stream)(device) for _ in range(3))


def _check_cuda(index: int) -> None:
    if torch.version.cuda is None and torch.version.hip is None:
        raise ConfigError(
            f"there is no device 'cuda:{index}': torch {torch.__version__} was built without CUDA; "
            "install a build for your CUDA, or use --device cpu"
        )
    seen = torch.cuda.device_count()
    if index >= seen:
        # The supervisor found it, so torch's view of it is news.
        raise DeviceFailed(f"there is no device 'cuda:{index}': torch sees {seen} CUDA devices", Fault.LOST)


def _writable(array: Array) -> Array:
    # A read-only array is a view of the request's own bytes, and a module may write into its inputs.
    return array if array.flags.writeable and array.flags.c_contiguous else array.copy()


def _pinned(array: Array) -> Tensor:
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    tensor = torch.empty(array.shape, dtype=dtype, pin_memory=True)
    tensor.numpy()[...] = array
    return tensor


def _to_host(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
