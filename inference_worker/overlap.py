"""Batches of a device that works beside its process: begun and landed by the runner, awaited in a thread meanwhile."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from common.tensor import Array
from inference_worker.backends.base import Finish
from inference_worker.batching.collate import collate
from inference_worker.infer import with_rows
from inference_worker.inflight import InFlight
from inference_worker.item import Batch
from inference_worker.models.registry import Loaded


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a flight came to, and when; `seconds` are the device's own, where it tells them."""

    outputs: Mapping[str, Array]
    seconds: float | None
    error: Exception | None
    at_s: float


@dataclass(frozen=True, slots=True)
class Landing:
    """A batch that is no longer under way: its outputs or its error; for `seconds` from `since_s` on it was computed.

    `beside`: others were under way at the same time.
    """

    batch: Batch
    outputs: Mapping[str, Array]
    error: Exception | None
    since_s: float
    seconds: float
    beside: bool


class Overlap:
    """For the runner's thread. `wake` is called from another one whenever a batch has arrived."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._flights = InFlight()
        self._awaited: deque[Future[Arrival]] = deque()
        # It has no thread before the first flight.
        self._waiter = ThreadPoolExecutor(1, "flights")

    def __len__(self) -> int:
        return len(self._awaited)

    def begin(self, batch: Batch, expected_s: float) -> None:
        """Raises what the model or its device raises at once; then it is not under way."""
        at_s = time.monotonic()
        finish = batch.loaded.backend.begin(collate(batch))
        self._flights.begin(batch, expected_s, at_s, time.monotonic())
        future = self._waiter.submit(_arrival, finish, batch.loaded, batch.rows)
        self._awaited.append(future)
        future.add_done_callback(lambda _: self._wake())

    def wait(self) -> bool:
        """Until the oldest has arrived: True; or another batch may begin: False."""
        oldest = self._awaited[0]
        if not oldest.done():
            wait([oldest], self._flights.wait_s(time.monotonic()))
        return oldest.done()

    def land(self) -> Landing:
        """The oldest; waits until it has arrived."""
        arrival = self._awaited.popleft().result()
        begun, since_s, seconds = self._flights.land(arrival.at_s)
        if arrival.seconds is not None:
            seconds = arrival.seconds
        return Landing(begun.batch, arrival.outputs, arrival.error, since_s, seconds, begun.beside)

    def crowded(self) -> None:
        """A batch did not fit beside another one: for a while each is alone."""
        self._flights.crowded()

    @property
    def running(self) -> tuple[Loaded, float] | None:
        """The model of the oldest, and since when its device works on that."""
        oldest = self._flights.oldest
        return None if oldest is None else (oldest[0].loaded, oldest[1])


def _arrival(finish: Finish, loaded: Loaded, rows: int) -> Arrival:
    """In the waiting thread."""
    try:
        landed = finish()
        outputs = with_rows(loaded, landed.outputs, rows)
    except Exception as error:
        # Its frames hold the arrays of a batch that may not have fitted.
        return Arrival({}, None, error.with_traceback(None), time.monotonic())
    return Arrival(outputs, landed.seconds, None, time.monotonic())
