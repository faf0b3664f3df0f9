"""The loop that owns the device: next batch, collate, infer, hand over. The only thread that runs models.

Where the device works beside its process, a batch is begun while the one before is computed (overlap.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from common.errors import InferenceError, ModelError
from common.tensor import Array
from common.text import describe
from inference_worker.batching.collate import collate
from inference_worker.batching.split import halves, smaller
from inference_worker.batching.tally import Tally
from inference_worker.devices.faults import DeviceFailed, is_out_of_memory, raise_if_fatal
from inference_worker.holding import Holding
from inference_worker.infer import infer
from inference_worker.item import Batch, Part
from inference_worker.marks import Marks
from inference_worker.models.registry import Loaded
from inference_worker.outcome import Outcome, as_model_error, failed
from inference_worker.outputs import not_finite
from inference_worker.overlap import Landing, Overlap

#: A batch that takes longer is worth taking the next entries beside it.
SLOW_S = 0.001

#: A part, its rows of the outputs, and what is wrong with them.
Cut = tuple[Part, Mapping[str, Array], InferenceError | None]


class Feed(Protocol):
    """What brings parts: see Intake."""

    busy: bool

    def call(self) -> None: ...
    def rest(self) -> None: ...
    def lead(self) -> bool: ...


class Runner:
    """Runs batches until its holding is closed and empty. `deliver` gets outcomes, and whether to send them at once.

    `settle` waits until what was delivered is sent.
    """

    def __init__(
        self,
        holding: Holding,
        marks: Marks,
        feed: Feed,
        deliver: Callable[[list[Outcome], bool], None],
        tally: Tally | None = None,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._holding = holding
        self._marks = marks
        self._feed = feed
        self._deliver = deliver
        self._settle = settle
        self._last_s = SLOW_S
        self._running: tuple[Loaded, float] | None = None  # and since when
        self._overlap = Overlap(holding.wake)
        self.tally = tally or Tally()

    def run(self) -> None:
        while (batch := self._next()) is not None:
            if batch.suspect:
                # It may end the process: what others' requests came to is not to be computed again for that.
                self._land_all()
                self._settle()
            if batch.loaded.backend.depth > 1:
                self._begin(batch)
                continue
            self._land_all()
            # A quick model is done before another thread is awake.
            beside = self._feed.busy or self._last_s >= SLOW_S or not self._holding.empty
            if beside:
                self._feed.call()
            self._deliver(self._timed(batch), not beside and self._holding.empty)

    def _next(self) -> Batch | None:
        """The next batch, taken here where nobody else takes; None once the holding is closed and empty."""
        while True:
            if self._overlap and self._overlap.wait():
                self._land()
                continue
            batch, dropped = self._holding.next_batch(self._marks.unwanted)
            if dropped:
                self._deliver([failed(part, self._marks.reason(part)) for part in dropped], True)
            if batch is not None:
                return batch
            if self._holding.empty and self._holding.closed:
                self._land_all()
                return None
            if self._holding.empty and not self._holding.reserved and not self._overlap:
                self._feed.rest()
                if self._feed.lead():
                    continue
            else:
                self._feed.call()
            self._holding.wait_for_batch()

    def _begin(self, batch: Batch) -> None:
        """Have the device work on it; its results are delivered when it has landed."""
        self._feed.call()
        if not self._holding.fits(batch):
            self._land_all()
            self._deliver(self._timed(batch), False)
            return
        try:
            self._overlap.begin(batch, self._holding.expected_s(batch))
        except Exception as error:
            beside = len(self._overlap) > 0
            self._deliver(self._again(batch, error.with_traceback(None), beside), False)
        self._running = self._overlap.running

    def _land(self) -> None:
        landing = self._overlap.land()
        self._running = self._overlap.running
        if landing.error is None:
            self._deliver(self._landed(landing), False)
        else:
            self._deliver(self._again(landing.batch, landing.error, landing.beside), False)
            self._running = None

    def _land_all(self) -> None:
        while self._overlap:
            self._land()

    def _landed(self, landing: Landing) -> list[Outcome]:
        return self._ran(landing.batch, landing.outputs, landing.since_s, landing.seconds)

    def _again(self, batch: Batch, error: Exception, beside: bool) -> list[Outcome]:
        """The outcomes of a batch that failed on a device that works beside us. It runs again when that is free.

        What did not fit `beside` others runs whole before it is taken for too large.
        """
        try:
            raise_if_fatal(error)
        except DeviceFailed:
            self._save()
            raise
        self._land_all()
        if not is_out_of_memory(error):
            return self._search(batch, error)
        if not beside:
            return self._shrink(batch, error)
        self._overlap.crowded()
        return self._run(batch)

    def _save(self) -> None:
        """The device has failed for good: what has come back from it even so is not run again elsewhere."""
        while self._overlap:
            landing = self._overlap.land()
            if landing.error is None:
                self._deliver(self._landed(landing), False)

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
        return self._ran(batch, outputs, started, time.monotonic() - started)

    def _ran(self, batch: Batch, outputs: Mapping[str, Array], started: float, seconds: float) -> list[Outcome]:
        """Learn from a batch, and cut its outputs."""
        self._holding.ran(batch, seconds)
        self.tally.add(batch, started, seconds)
        return [
            Outcome(part, rows, error, started, int(seconds * 1e6), batch.rows)
            for part, rows, error in _split(batch, outputs)
        ]


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
        yield part, rows, not_finite(batch.loaded, rows) if check else None
