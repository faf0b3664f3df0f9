"""A device that is none: it computes on the CPU, has little memory, and fails as it is told, with a GPU's own errors.

Where no GPU is present this is what tests the code around one. Nothing about its speed means anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from common.tensor import Array
from inference_worker.devices.accelerator import KINDS, Accelerator, Cpu, Flight, Module, Tensors
from inference_worker.devices.memory import Memory

OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate {need} bytes. GPU 0 has a total capacity of {total} bytes"
STICKY = "CUDA error: an illegal memory access was encountered"
LOST = "CUDA error: GPU has fallen off the bus (Xid 79)"


class StandIn(Accelerator):
    """`total` bytes hold a batch's inputs and outputs at once. From its failure on each further call fails as well."""

    def __init__(self, total: int = 1 << 30) -> None:
        self.device = torch.device("cpu")
        self._total = total
        self._placed = 0
        self._failure: str | None = None
        #: Rows of each batch that was tried.
        self.tried: list[int] = []

    def fail(self, message: str) -> None:
        """Be STICKY or LOST from now on."""
        self._failure = message

    def memory(self) -> Memory:
        return Memory(self._total - self._placed, self._total)

    def place(self, module: Module) -> Module:
        self._take(sum(one.nbytes for one in module.parameters()))
        self._placed += sum(one.nbytes for one in module.parameters())
        return module

    def launch(self, arrays: Mapping[str, Array], compute: Callable[[Tensors], Tensors]) -> Flight:
        self._check()
        self.tried.append(max(len(one) for one in arrays.values()))
        self._take(2 * sum(one.nbytes for one in arrays.values()))
        return Cpu().launch(arrays, compute)

    def release(self) -> None:
        self._placed = 0

    def _check(self) -> None:
        if self._failure is not None:
            raise torch.AcceleratorError(self._failure)

    def _take(self, need: int) -> None:
        if need > self.memory().free:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY.format(need=need, total=self._total))


@contextmanager
def standing_in(device: Any, kind: str = "stand-in") -> Iterator[None]:
    """Inside the block `kind` (also "cpu") is a kind of device, and `device` all there is of it."""
    before = dict(KINDS)
    KINDS[kind] = lambda index: device
    try:
        yield
    finally:
        KINDS.clear()
        KINDS.update(before)
