"""What one process has done of a job so far: counts for its progress, and samples for its pictures. Thread-safe."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

import numpy as np

from common.tensor import Array

#: Samples kept of each kind. When there are so many, every second one goes, and from then on every second one comes.
SAMPLES = 4096
#: Different messages of errors that are counted apart.
MESSAGES = 50


class Samples:
    """An even sample of a stream of numbers of unknown length. Pure."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._step, self._seen = 1, 0

    def add(self, value: float) -> None:
        if self._seen % self._step == 0:
            self.values.append(value)
        self._seen += 1
        if len(self.values) >= SAMPLES:
            self.values = self.values[::2]
            self._step *= 2


class Tally:
    """`rows` have a result or an error; `errors` are those of them with an error. `skipped` rows were done before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self.started_s = clock()
        self.rows = self.errors = self.skipped = self.shards = self.bytes = 0
        self.useful = self.filled = 0
        self.compute_s = 0.0
        self.latency_ms, self.batch_rows, self.lengths = Samples(), Samples(), Samples()
        self.distributions: dict[str, Samples] = {}
        self.messages: Counter[str] = Counter()
        self.timeline: list[tuple[float, int]] = [(0.0, 0)]

    def chunk(self, lengths: Array, latency_s: float, compute_s: float) -> None:
        """A chunk has its answer. `lengths` are those of its rows."""
        with self._lock:
            self.rows += len(lengths)
            self.useful += int(lengths.sum())
            self.filled += int(lengths.max(initial=0)) * len(lengths)
            self.compute_s += compute_s
            self.latency_ms.add(latency_s * 1000)
            self.batch_rows.add(len(lengths))
            for length in lengths[:: max(1, len(lengths) // 8)]:
                self.lengths.add(float(length))
            self._mark()

    def failed(self, errors: Mapping[int, str], unread: int) -> None:
        """A shard's rows without a result; `unread` of them never reached the model."""
        with self._lock:
            self.errors += len(errors)
            self.rows += unread
            for why in errors.values():
                if why in self.messages or len(self.messages) < MESSAGES:
                    self.messages[why] += 1
            self._mark()

    def finished(self, written: int, values: Mapping[str, list[float]]) -> None:
        """A shard is on disk."""
        with self._lock:
            self.shards += 1
            self.bytes += written
            for name, numbers in values.items():
                samples = self.distributions.setdefault(name, Samples())
                for number in numbers:
                    samples.add(number)

    @property
    def elapsed_s(self) -> float:
        return max(1e-9, self._clock() - self.started_s)

    @property
    def rows_per_s(self) -> float:
        """Over the last minute, or what there is of it."""
        at, rows = self.timeline[-1]
        since = next(((then, count) for then, count in self.timeline if at - then <= 60), (0.0, 0))
        return (rows - since[1]) / (at - since[0]) if at > since[0] else rows / self.elapsed_s

    @property
    def padding_ratio(self) -> float:
        """The share of the elements in batches that was no padding."""
        return self.useful / self.filled if self.filled else 1.0

    def facts(self) -> dict[str, Any]:
        """For a record, a summary, a machine."""
        return {
            "rows": self.rows,
            "errors": self.errors,
            "seconds": round(self.elapsed_s, 3),
            "rows_per_s": round(self.rows / self.elapsed_s, 3),
            "elements_per_s": round(self.useful / self.elapsed_s, 1),
            "padding_ratio": round(self.padding_ratio, 4),
            "compute_s": round(self.compute_s, 3),
            "bytes": self.bytes,
        }

    def _mark(self) -> None:
        """The rows by now, thinned so that a run of days stays small."""
        now = self._clock() - self.started_s
        if now - self.timeline[-1][0] >= 0.2:
            self.timeline.append((now, self.rows))
            if len(self.timeline) > SAMPLES:
                self.timeline = self.timeline[::2]
        elif len(self.timeline) > 1:
            self.timeline[-1] = (self.timeline[-1][0], self.rows)


def histogram(values: list[float], bins: int = 30) -> tuple[list[int], list[float]]:
    """(counts, edges) of what is finite; empty where nothing is."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return [], []
    counts, edges = np.histogram(finite, bins)
    return counts.tolist(), edges.tolist()
