"""A device that is none: it computes on the CPU, has little memory, and fails as it is told, with a GPU's own errors.

Where no GPU is present this is what tests the code around one. Nothing about its speed means anything.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Lock
from typing import Any, TypeVar

import torch
from torch import Tensor

from common.tensor import Array
from inference_worker.devices.accelerator import KINDS, Accelerator, Cpu, Flight, Module, Tensors
from inference_worker.devices.memory import Memory

T = TypeVar("T")

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

    def begin(self, arrays: Mapping[str, Array], compute: Callable[[Tensors], Tensors]) -> Flight:
        self._check()
        self.tried.append(max(len(one) for one in arrays.values()))
        self._take(2 * sum(one.nbytes for one in arrays.values()))
        return Cpu().begin(arrays, compute)

    def release(self) -> None:
        self._placed = 0

    def _check(self) -> None:
        if self._failure is not None:
            raise torch.AcceleratorError(self._failure)

    def _take(self, need: int) -> None:
        if need > self.memory().free:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY.format(need=need, total=self._total))


class Asynchronous(StandIn):
    """Works beside its process, as a GPU does: a thread each copies in, computes, and copies out, batch after batch.

    Batches are counted from 1. A copy is thought to take `copy_s` and computing `compute_s`: the first is what passes,
    the latter what a batch's flight tells. `log` says what began and ended in which order ("begin 1", "in 1",
    "in 1 done", "compute 1"). What is on its way takes memory until it has been copied out.
    """

    depth = 2

    def __init__(self, total: int = 1 << 30, copy_s: float = 0.0, compute_s: float = 0.001) -> None:
        super().__init__(total)
        self._copy_s = copy_s
        self._compute_s = compute_s
        self._stages = {name: ThreadPoolExecutor(1, name) for name in ("in", "compute", "out")}
        self._held: defaultdict[str, Event] = defaultdict(_open)
        self._fails: dict[int, str] = {}
        self._lock = Lock()
        self._number = 0
        self.log: list[str] = []

    def hold(self, step: str) -> Event:
        """The step ("compute 1") begins, and ends only once the event is set."""
        self._held[step] = Event()
        return self._held[step]

    def fail_at(self, number: int, message: str) -> None:
        """Computing the batch of that number fails; with STICKY or LOST all that comes after it as well."""
        self._fails[number] = message

    def begin(self, arrays: Mapping[str, Array], compute: Callable[[Tensors], Tensors]) -> Flight:
        self._number = number = self._number + 1
        self.log.append(f"begin {number}")
        self._held[f"begin {number}"].wait()
        self._check()
        self.tried.append(max(len(one) for one in arrays.values()))
        need = 2 * sum(one.nbytes for one in arrays.values())
        with self._lock:
            self._take(need)
            self._placed += need
        inputs = {name: array.copy() for name, array in arrays.items()}
        there = self._step("in", number, lambda: self._copied(inputs))
        computed = self._step("compute", number, lambda: self._computed(number, there.result(), compute))
        landed = self._step("out", number, lambda: self._copied(computed.result()))
        landed.add_done_callback(lambda _: self._give(need))
        return _Flying(landed, self._compute_s)

    def _computed(self, number: int, inputs: Mapping[str, Array], compute: Callable[[Tensors], Tensors]) -> Tensors:
        if number in self._fails:
            if self._fails[number] in (STICKY, LOST):
                self.fail(self._fails[number])
            raise torch.AcceleratorError(self._fails[number])
        self._check()
        time.sleep(self._compute_s)
        with torch.inference_mode():
            return Cpu().begin(inputs, compute).finish()

    def _step(self, name: str, number: int, work: Callable[[], T]) -> Future[T]:
        def step() -> T:
            self.log.append(f"{name} {number}")
            self._held[f"{name} {number}"].wait()
            try:
                return work()
            finally:
                self.log.append(f"{name} {number} done")

        return self._stages[name].submit(step)

    def _copied(self, what: T) -> T:
        time.sleep(self._copy_s)
        return what

    def _give(self, need: int) -> None:
        with self._lock:
            self._placed -= need


class _Flying(Flight):
    def __init__(self, landed: Future[Tensors], compute_s: float) -> None:
        self._landed = landed
        self._compute_s = compute_s

    def finish(self) -> dict[str, Tensor]:
        outputs = dict(self._landed.result())
        self.seconds = self._compute_s
        return outputs


def _open() -> Event:
    event = Event()
    event.set()
    return event


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
