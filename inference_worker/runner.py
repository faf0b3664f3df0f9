"""The loop that owns the device: next batch, collate, infer, hand over. The only thread that runs models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np

from common.errors import InferenceError, ModelError
from common.tensor import Array
from common.text import describe
from inference_worker.batching.collate import collate
from inference_worker.batching.split import halves, smaller
from inference_worker.batching.tally import Tally
from inference_worker.devices.faults import is_out_of_memory, raise_if_fatal
from inference_worker.holding import Holding
from inference_worker.item import Batch, Part
from inference_worker.marks import Marks
from inference_worker.models.registry import Loaded
from inference_worker.outcome import Outcome, as_model_error, failed

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
        self._running: tuple[Loaded, float] | None = None  # and since when
        self.tally = Tally()

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
            if self._holding.empty and self._holding.closed:
                return None
            if self._holding.empty and not self._holding.reserved:
                self._feed.rest()
                if self._feed.lead():
                    continue
            else:
                self._feed.call()
            self._holding.wait_for_batch()

    def _timed(self, batch: Batch) -> list[Outcome]:
        started_s = time.monotonic()
        outcomes = self._run(batch)
        self._last_s = time.monotonic() - started_s
        self._running = None
        return outcomes

    @property
    def running(self) -> tuple[Loaded, int] | None:
        """The model of the batch that runs, and for how many ms it has. A hung model shows here."""
        running = self._running
        return None if running is None else (running[0], int((time.monotonic() - running[1]) * 1000))

    def _run(self, batch: Batch) -> list[Outcome]:
        """Infer; whatever goes wrong, each part has its own result or its own error.

        Raises DeviceFailed where the process cannot go on: who takes over what ran here runs it one by one.
        """
        parted = None if self._holding.fits(batch) else smaller(batch)
        if parted is not None:
            return self._run(parted[0]) + self._run(parted[1])
        outcomes, error = self._try(batch)
        if error is None:
            return outcomes
        return self._shrink(batch, error) if is_out_of_memory(error) else self._search(batch, error)

    def _try(self, batch: Batch) -> tuple[list[Outcome], Exception | None]:
        try:
            return self._infer(batch), None
        except Exception as error:
            raise_if_fatal(error)
            # Its frames hold the arrays of a batch that did not fit.
            return [], error.with_traceback(None)

    def _shrink(self, batch: Batch, error: Exception) -> list[Outcome]:
        """A batch that did not fit into memory, as smaller ones."""
        self._holding.out_of_memory(batch)
        parted = smaller(batch)
        if parted is None:
            return [failed(batch.parts[0], _too_large(batch, error))]
        return self._run(parted[0]) + self._run(parted[1])

    def _search(self, batch: Batch, error: Exception) -> list[Outcome]:
        """A batch that failed: halve it to find the part at fault, and let the others have their results."""
        parted = halves(batch)
        if parted is None:
            return [failed(batch.parts[0], as_model_error(batch.loaded, error))]
        first, second = parted
        outcomes, failure = self._try(first)
        if failure is not None:
            return self._search(first, failure) + self._run(second)
        # The fault is in the second half. A single part runs even so: it may have failed only beside the others.
        return outcomes + (self._search(second, error) if len(second.parts) > 1 else self._run(second))

    def _infer(self, batch: Batch) -> list[Outcome]:
        started = time.monotonic()
        # Each half of a batch that failed has the model's whole time.
        self._running = batch.loaded, started
        outputs = infer(batch.loaded, collate(batch), batch.rows)
        seconds = time.monotonic() - started
        self._holding.ran(batch, seconds)
        self.tally.add(batch)
        return [
            Outcome(part, rows, error, started, int(seconds * 1e6), batch.rows)
            for part, rows, error in _split(batch, outputs)
        ]


def infer(loaded: Loaded, arrays: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """A collated batch's outputs, as arrays with `rows` rows. Raises WrongRowsError, or what the model raises."""
    outputs = {name: np.asarray(value) for name, value in loaded.backend.infer(arrays).items()}
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            raise WrongRowsError(
                f"model '{loaded.spec.name}' returned {_returned(array)} '{name}' for a batch of {rows}; "
                "an output is an array with the rows first"
            )
    return outputs


def _returned(array: Array) -> str:
    """What came in an array's place, in front of an output's name."""
    if array.ndim:
        return f"{len(array)} rows of"
    return "a scalar for" if array.dtype.kind in "biufc" else f"a value of type {type(array.item()).__name__} for"


def _too_large(batch: Batch, error: Exception) -> ModelError:
    spec = batch.loaded.spec
    size = f"one row of {batch.size} elements" if batch.parts[0].shapes else "one row"
    return ModelError(
        f"model '{spec.name}:{spec.version}' ran out of memory on {size}, alone in its batch; send a smaller input, or "
        f"serve the model where there is more memory: {describe(error)}"
    )


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
