"""Shards through a scorer: chunks handed in as there is room, their answers put back into their rows.

A chunk that fails is halved until the row at fault is found; the others have their results.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from common.errors import InferenceError, ModelError
from inference_worker.models.spec import TensorSpec
from inference_worker.scoring.chunks import Indices, cut, halves
from inference_worker.scoring.columns import Bound, Inputs, read_inputs
from inference_worker.scoring.engine import Answer, Pending, Scorer
from inference_worker.scoring.facts import Cut
from inference_worker.scoring.results import Gathered
from inference_worker.scoring.shards import Shard
from inference_worker.scoring.tally import Tally

#: How long an answer is waited for before `tick` is called: whether the job is cancelled, say.
TICK_S = 0.5
#: Where there is no room for a chunk and no answer to wait for.
PAUSE_S = 0.01


class RowFailed(ModelError):
    """A row has no result, and the job was told to end at that."""


@dataclass(slots=True)
class Work:
    """A shard that is being scored. `kept` are its columns that stand beside the results."""

    shard: Shard
    kept: pa.Table
    inputs: Inputs
    gathered: Gathered
    chunks: Sequence[Indices]
    left: int = 0
    seconds: float = 0.0
    started_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Encoder:
    """A shard's table to work: inputs checked row by row, and cut into chunks."""

    bound: Sequence[Bound]
    outputs: Sequence[TensorSpec]
    kept: Sequence[str]
    cut: Cut
    pads: bool

    def __call__(self, shard: Shard, table: pa.Table) -> Work:
        inputs = read_inputs(self.bound, table)
        gathered = Gathered(self.outputs, table.num_rows)
        for row, why in inputs.errors.items():
            gathered.fail(row, why)
        chunks = list(cut(inputs.good, inputs.sizes, self.cut, self.pads))
        return Work(shard, table.select(list(self.kept)), inputs, gathered, chunks, len(inputs.good))


@dataclass(frozen=True, slots=True)
class _Chunk:
    work: Work
    rows: Indices
    pending: Pending
    since_s: float


class Flow:
    """Runs works through one scorer. `tick` is called at least twice a second, and may raise to end it all."""

    def __init__(self, scorer: Scorer, tally: Tally, tick: Callable[[], None], fail_fast: bool = False) -> None:
        self._scorer = scorer
        self._tally = tally
        self._tick = tick
        self._fail_fast = fail_fast
        self._under_way: deque[_Chunk] = deque()

    def run(self, works: Iterable[Work | None]) -> Iterator[Work]:
        """Each work once all of its rows have a result or an error; None among them: there is none for now."""
        for work in works:
            if work is None:
                yield from self._settle()
                continue
            self._check(work)
            if not work.left:
                yield work
            for rows in work.chunks:
                while not self._scorer.room(len(self._under_way)):
                    yield from self._settle()
                self._under_way.append(self._submit(work, rows))
                self._tick()
        while self._under_way:
            yield from self._settle()

    def _settle(self) -> Iterator[Work]:
        """Wait for the chunk that was handed in first; its work, where that was all of it."""
        self._tick()
        if not self._under_way:
            time.sleep(PAUSE_S)
            return
        chunk = self._under_way[0]
        answer = chunk.pending.result(TICK_S)
        if answer is None:
            return
        self._under_way.popleft()
        if answer.error is not None and len(chunk.rows) > 1:
            self._under_way.extendleft([self._submit(chunk.work, half) for half in reversed(halves(chunk.rows))])
            return
        self._take(chunk, answer)
        if not chunk.work.left:
            yield chunk.work

    def _submit(self, work: Work, rows: Indices) -> _Chunk:
        pending = self._scorer.submit(work.inputs.take(rows), len(rows))
        return _Chunk(work, rows, pending, time.monotonic())

    def _take(self, chunk: _Chunk, answer: Answer) -> None:
        work, rows = chunk.work, chunk.rows
        if answer.error is None:
            work.gathered.fill(rows, answer.outputs)
        else:
            work.gathered.fail(int(rows[0]), _told(answer.error))
            self._check(work)
        work.left -= len(rows)
        work.seconds += answer.compute_s
        lengths = work.inputs.sizes.length[rows]
        self._tally.chunk(lengths, time.monotonic() - chunk.since_s, answer.compute_s)

    def _check(self, work: Work) -> None:
        """Raises RowFailed for a work with a bad row where one ends the job."""
        if self._fail_fast and work.gathered.errors:
            row = min(work.gathered.errors)
            raise RowFailed(
                f"row {work.shard.start + row} of '{work.shard.name.rpartition('-')[0]}': "
                f"{work.gathered.errors[row]}; --on-error keep goes on, and leaves such rows empty"
            )


def _told(error: InferenceError) -> str:
    return f"{error.code}: {error}"
