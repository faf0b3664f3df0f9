"""A process's metrics, in a file that outlives it: one writer, any number of readers, no lock between them.

The file holds a word, numbers, and lines of names. A writer puts a line behind the others, and then moves the word,
which says how many bytes of lines there are: readers see a whole line or none. Whoever opens the file again, such as
the next process in the same place, counts on where the last one was killed. So nothing is lost or counted twice, and
there are as many files as places. All of a file's room is taken when it is made: a disk that fills later ends nobody.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

from common.errors import ConfigError
from common.metrics.declared import ALL, OPEN, OTHER, Metric

CELLS = 16_384
_NAMES_AT = 8 * (1 + CELLS)
FILE_BYTES = _NAMES_AT + 512 * 1024
_METRICS = {metric.name: metric for metric in ALL}

#: A metric's name, and the values of its labels.
Series = tuple[str, tuple[str, ...]]


class Number:
    """One number of a counter or a gauge. For one thread at a time."""

    __slots__ = ("_at", "_cells")

    def __init__(self, cells: memoryview[float], at: int) -> None:
        self._cells = cells
        self._at = at

    def add(self, amount: float) -> None:
        self._cells[self._at] += amount

    def set(self, value: float) -> None:
        self._cells[self._at] = value


class Histogram:
    """Counts by bucket, and the sum. For one thread at a time."""

    __slots__ = ("_at", "_bounds", "_cells")

    def __init__(self, cells: memoryview[float], at: int, bounds: Sequence[float]) -> None:
        self._cells = cells
        self._at = at
        self._bounds = bounds

    def add(self, values: list[float]) -> None:
        """All of these, in a step for each bucket that they fall into. Sorts them."""
        values.sort()
        done, of, bounds = 0, len(values), self._bounds
        while done < of:
            # A bound is in its own bucket: the first one that is not below the value.
            bucket = bisect_right(bounds, values[done])
            if bucket and bounds[bucket - 1] == values[done]:
                bucket -= 1
            until = bisect_right(values, bounds[bucket], done) if bucket < len(bounds) else of
            self._cells[self._at + bucket] += until - done
            done = until
        self._cells[self._at + len(bounds) + 1] += sum(values)


class Recorder:
    """Writes one process's file. A set of labels is found again by whoever keeps what `number` and `histogram` give.

    Raises ConfigError where there is no room for the file.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = _mapped(path)
        except OSError as error:
            raise ConfigError(
                f"the metrics cannot be kept: {error}; make room there, or leave out --metrics"
            ) from error
        self._words = memoryview(self._file)[:_NAMES_AT].cast("Q")
        self._cells = memoryview(self._file)[:_NAMES_AT].cast("d")
        self._lock = Lock()
        self._series: dict[Series, int] = {}
        self._sets: Counter[str] = Counter()
        self._used = 1
        for series, at in _names(self._file):
            self._learn(series, at)

    def number(self, metric: Metric, *labels: str) -> Number:
        return Number(self._cells, self._place(metric, labels))

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        return Histogram(self._cells, self._place(metric, labels), metric.bounds)

    def _place(self, metric: Metric, labels: tuple[str, ...]) -> int:
        with self._lock:
            at = self._series.get((metric.name, labels))
            if at is None and self._sets[metric.name] >= metric.most:
                labels = bounded(metric, labels)
                at = self._series.get((metric.name, labels))
            return self._add(metric, labels) if at is None else at

    def _add(self, metric: Metric, labels: tuple[str, ...]) -> int:
        at = self._used
        line = json.dumps([metric.name, labels, at]).encode() + b"\n"
        end = _NAMES_AT + self._words[0] + len(line)
        if at + metric.cells > CELLS or end > FILE_BYTES:
            raise RuntimeError(f"the metrics' file has no room for {metric.name} {labels}. This is a bug.")
        self._file[end - len(line) : end] = line
        self._words[0] += len(line)
        self._learn((metric.name, labels), at)
        return at

    def _learn(self, series: Series, at: int) -> None:
        self._series[series] = at
        self._sets[series[0]] += 1
        self._used = max(self._used, at + _METRICS[series[0]].cells)


def bounded(metric: Metric, labels: tuple[str, ...]) -> tuple[str, ...]:
    """With OTHER in place of names that come with requests or models."""
    return tuple(OTHER if name in OPEN else value for name, value in zip(metric.labels, labels, strict=True))


class Recordings:
    """Reads the files of a folder, which holds nothing else, whether or not their writers still run.

    For one thread at a time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, tuple[mmap.mmap, memoryview[float]]] = {}

    def read(self) -> dict[Series, list[float]]:
        """The cells of each series, those of all processes added up."""
        found: dict[Series, list[float]] = {}
        for path in sorted(self._folder.iterdir()):
            file, cells = self._open(path)
            for series, at in _names(file):
                values = list(cells[at : at + _METRICS[series[0]].cells])
                before = found.get(series)
                found[series] = values if before is None else [a + b for a, b in zip(before, values, strict=True)]
        return found

    def _open(self, path: Path) -> tuple[mmap.mmap, memoryview[float]]:
        if path.name not in self._files:
            file = _mapped(path)
            self._files[path.name] = file, memoryview(file)[:_NAMES_AT].cast("d")
        return self._files[path.name]


def _names(file: mmap.mmap) -> Iterator[tuple[Series, int]]:
    length = int.from_bytes(file[:8], "little")
    for line in file[_NAMES_AT : _NAMES_AT + length].splitlines():
        name, labels, at = json.loads(line)
        yield (name, tuple(labels)), at


def _mapped(path: Path) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _reserve(descriptor)
        return mmap.mmap(descriptor, FILE_BYTES)
    finally:
        os.close(descriptor)


def _reserve(descriptor: int) -> None:
    """Without room of its own, a page of the file that is first written on a full disk would be a SIGBUS."""
    try:
        os.posix_fallocate(descriptor, 0, FILE_BYTES)
    except (AttributeError, OSError) as error:
        # macOS has none, nor have some file systems.
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.truncate(descriptor, FILE_BYTES)
