"""The models under fire: they compute a square or a cube, note what they computed, and do what a poison says."""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from common.tensor import Array
from inference_worker import Model

#: Names the folder in which each process notes what it computed.
NOTES = "INFERENCE_WORKER_CHAOS_NOTES"
#: A batch takes so long, and each row so much longer.
BATCH_S, ROW_S = 0.005, 0.001
#: The number in the sample, which no request has.
WARM_UP = -1


class Computed(Model, ABC):
    """A batch that failed is not noted: halves of it run again, and that is no second delivery."""

    inputs: ClassVar = {"n": "INT64[]", "poison": "BYTES[]"}
    outputs: ClassVar = {"value": "FP64[]"}
    rows = 16
    check_finite = True
    timeout = 3.0
    sample: ClassVar = {"n": WARM_UP, "poison": ""}

    @abstractmethod
    def compute(self, numbers: Array) -> Array:
        """What is asked for each of `numbers` (INT64), as FP64."""

    def infer(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        values = self.compute(batch["n"])
        for row, poison in enumerate(batch["poison"]):
            if poison:
                values[row] = _suffer(poison)
        time.sleep(BATCH_S + ROW_S * len(values))
        self._note(batch["n"])
        return {"value": values}

    def _note(self, numbers: Array) -> None:
        folder = os.environ.get(NOTES)
        if folder:
            with open(f"{folder}/{os.getpid()}", "a") as file:
                file.write("".join(f"{number}\n" for number in numbers if number != WARM_UP))


class Square(Computed):
    name = "square"
    cache_ttl = 60.0

    def compute(self, numbers: Array) -> Array:
        return numbers.astype(np.float64) ** 2


class Cube(Computed):
    name = "cube"

    def compute(self, numbers: Array) -> Array:
        return numbers.astype(np.float64) ** 3


def _suffer(poison: str) -> float:
    if poison == "raises":
        raise ValueError("this request is bad")
    if poison == "exits":
        os._exit(9)
    if poison == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if poison == "hangs":
        while True:
            time.sleep(1)
    return np.nan
