"""A worker's measuring parts, in the place of its plain ones, all of which write into one file."""

from __future__ import annotations

from pathlib import Path

from common.errors import InferenceError
from common.metrics.declared import ERRORS
from common.metrics.recording import Number, Recorder
from inference_worker.metrics.batches import MeteredTally, Seat
from inference_worker.metrics.broker import BrokerMeter
from inference_worker.metrics.models import MeteredOpener


class Meter:
    """Of the worker process in one place. Raises ConfigError where there is no room for its file.

    `device` is its name outside, `place` the file's, such as `worker-3`, where `3` is the worker's number.
    """

    def __init__(self, path: Path, pool: str, device: str) -> None:
        self._pool = pool
        self._device = device
        self._number = path.name.rpartition("-")[2]
        self._recorder = Recorder(path)
        self._errors: dict[str, Number] = {}
        self.broker = BrokerMeter(self._recorder, pool)

    def tally(self) -> MeteredTally:
        return MeteredTally(self._recorder, Seat(self._pool, self._device, self._number))

    def opener(self, device: str, threads: int) -> MeteredOpener:
        return MeteredOpener(self._recorder, self._pool, device, threads)

    def failed(self, error: InferenceError) -> None:
        """A request is answered with this."""
        number = self._errors.get(error.code)
        if number is None:
            number = self._errors[error.code] = self._recorder.number(ERRORS, self._pool, error.code)
        number.add(1)
