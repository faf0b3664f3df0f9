"""The loop that owns the device: next batch, collate, infer, hand over. The only thread that runs models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np

from common.errors import InferenceError, ModelError
from common.tensor import Array
from inference_worker.collate import collate
from inference_worker.holding import Holding
from inference_worker.item import Batch, Part
from inference_worker.marks import Marks
from inference_worker.outcome import Outcome, as_model_error, failed
from inference_worker.registry import Loaded
from inference_worker.split import halves

#: A batch that takes longer is worth taking the next entries beside it.
SLOW_S = 0.001

#: A part, its rows of the outputs, and what is wrong with them.
Cut = tuple[Part, Mapping[str, Array], InferenceError | None]


class WrongRowsError(ModelError):
    """The model returned another number of rows than it got; whose they are cannot be told, so halves run again."""


class Feed(Protocol):
    """What brings parts: see Intake."""

    busy: bool

    def call(self) -> None: ...
    def rest(self) -> None: ...
    def lead(self) -> bool: ...


class Runner:
    """Runs batches until its holding is closed and empty. `deliver` gets outcomes, and whether to send them at once."""

    def __init__(
        self, holding: Holding, marks: Marks, feed: Feed, deliver: Callable[[list[Outcome], bool], None]
    ) -> None:
        self._holding = holding
        self._marks = marks
        self._feed = feed
        self._deliver = deliver
        self._last_s = SLOW_S
        self._busy_since_s: float | None = None
        self.batches = 0
        self.rows = 0

    def run(self) -> None:
        while (batch := self._next()) is not None:
            # A quick model is done before another thread is awake.
            beside = self._feed.busy or self._last_s >= SLOW_S or not self._holding.empty
            if beside:
                self._feed.call()
            self._deliver(self._timed(batch), not beside and self._holding.empty)

    def _next(self) -> Batch | None:
        """The next batch, taken here where nobody else takes; None once the holding is closed and empty."""
        while True:
            batch, dropped = self._holding.next_batch(self._marks.unwanted)
            if dropped:
                self._deliver([failed(part, self._marks.reason(part)) for part in dropped], True)
            if batch is not None:
                return batch
            if self._holding.empty:
                if self._holding.closed:
                    return None
                self._feed.rest()
                if self._feed.lead():
                    continue
            else:
                self._feed.call()
            self._holding.wait_for_batch()

    def _timed(self, batch: Batch) -> list[Outcome]:
        self._busy_since_s = started_s = time.monotonic()
        outcomes = self._run(batch)
        self._last_s = time.monotonic() - started_s
        self._busy_since_s = None
        return outcomes

    @property
    def busy_ms(self) -> int:
        """Since when the running batch runs; 0 where none does. A hung model shows here."""
        since_s = self._busy_since_s
        return 0 if since_s is None else int((time.monotonic() - since_s) * 1000)

    def _run(self, batch: Batch) -> list[Outcome]:
        """Infer; where that fails, halve to find the part at fault and let the others have their results."""
        outcomes: list[Outcome] = []
        waiting = [batch]
        while waiting:
            one = waiting.pop()
            try:
                outcomes += self._infer(one)
            except Exception as error:
                parted = halves(one)
                if parted is None:
                    outcomes.append(failed(one.parts[0], as_model_error(one.loaded, error)))
                else:
                    waiting += reversed(parted)
        return outcomes

    def _infer(self, batch: Batch) -> list[Outcome]:
        started = time.monotonic()
        outputs = infer(batch.loaded, collate(batch), batch.rows)
        compute_us = int((time.monotonic() - started) * 1e6)
        self.batches += 1
        self.rows += batch.rows
        return [
            Outcome(part, rows, error, started, compute_us, batch.rows) for part, rows, error in _split(batch, outputs)
        ]


def infer(loaded: Loaded, arrays: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """A collated batch's outputs, as arrays with `rows` rows. Raises WrongRowsError, or what the model raises."""
    outputs = {name: np.asarray(value) for name, value in loaded.backend.infer(arrays).items()}
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            got = len(array) if array.ndim else "a scalar"
            raise WrongRowsError(f"model '{loaded.spec.name}' returned {got} rows of '{name}' for a batch of {rows}")
    return outputs


def _split(batch: Batch, outputs: Mapping[str, Array]) -> Iterator[Cut]:
    check = batch.loaded.spec.check_finite
    row = 0
    for part in batch.parts:
        stop = row + part.rows
        rows = {name: array[row:stop] for name, array in outputs.items()}
        row = stop
        yield part, rows, _not_finite(batch.loaded, rows) if check else None


def _not_finite(loaded: Loaded, rows: Mapping[str, Array]) -> InferenceError | None:
    for name, array in rows.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return ModelError(f"model '{loaded.spec.name}' gave NaN or infinity in its output '{name}'")
    return None
