"""The models under fault. Each notes what it computed, so that a second computation shows."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from common.tensor import Array
from inference_worker import Model

#: Names the folder in which each process notes what it computed.
NOTES = "INFERENCE_WORKER_FAULTS_NOTES"
#: The number in the sample, which no request has.
WARM_UP = -1
#: Long enough for a worker to take the next entries beside it.
SLOW_S = 0.05
#: More than any of these tests lets a process have.
TOO_MUCH = 1 << 40


class Work(Model):
    """Doubles `n`, and tells which process did it. `act` is what the item does to that process."""

    name = "work"
    inputs: ClassVar = {"n": "INT64[]", "act": "BYTES[]"}
    outputs: ClassVar = {"value": "INT64[]", "pid": "INT64[]"}
    rows = 16
    timeout = 2.0
    sample: ClassVar = {"n": WARM_UP, "act": ""}

    def infer(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        for act in batch["act"]:
            _do(act)
        note(batch["n"])
        return {"value": 2 * batch["n"], "pid": np.full(len(batch["n"]), os.getpid())}


class Gate(Model):
    """Passes `n` on once the file `gate` is there. Before, it adds a line with its process id to `<gate>.entered`."""

    name = "gate"
    inputs: ClassVar = {"n": "INT64[]", "gate": "BYTES[]"}
    outputs: ClassVar = {"value": "INT64[]", "pid": "INT64[]"}
    rows = 16
    sample: ClassVar = {"n": WARM_UP, "gate": os.devnull}

    def infer(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        gate = Path(batch["gate"][0])
        if str(gate) != os.devnull:
            _append(gate.with_name(f"{gate.name}.entered"), f"{os.getpid()}\n")
        while not gate.exists():
            time.sleep(0.005)
        note(batch["n"])
        return {"value": batch["n"], "pid": np.full(len(batch["n"]), os.getpid())}


def note(numbers: Array) -> None:
    _append(Path(os.environ[NOTES], str(os.getpid())), "".join(f"{one}\n" for one in numbers if one != WARM_UP))


def _do(act: str) -> None:
    match act:
        case "exit":
            os._exit(9)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "loop":
            while True:
                pass
        case "grow":
            np.zeros(TOO_MUCH, np.uint8)
        case "slow":
            time.sleep(SLOW_S)
        case "raise":
            raise ValueError("this item is bad")


def _append(file: Path, text: str) -> None:
    with file.open("a") as stream:
        stream.write(text)
