"""What runs chunks, whatever it is: hand one in, ask for its answer. See local.py and queued.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from common.errors import InferenceError
from common.tensor import Array
from inference_worker.scoring.facts import Facts


@dataclass(frozen=True, slots=True)
class Answer:
    """A chunk's outputs with the rows first, or its error. `compute_s`: the device's time for it."""

    outputs: Mapping[str, Array]
    error: InferenceError | None = None
    compute_s: float = 0.0


class Pending(Protocol):
    """A chunk under way."""

    def result(self, timeout_s: float) -> Answer | None:
        """Its answer; None where it is not there within so many seconds. Raises what ends the whole job."""


class Scorer(Protocol):
    """Runs chunks in the order in which they come, or beside each other."""

    facts: Facts

    def room(self, under_way: int) -> bool:
        """Whether another chunk may be handed in beside these."""

    def submit(self, inputs: Mapping[str, Array], rows: int) -> Pending:
        """Hand in a chunk: each array has `rows` rows first."""

    def close(self) -> None:
        """Give up what is under way."""
