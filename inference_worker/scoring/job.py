"""One job in one process: read, encode, score and write beside each other, shard by shard, until none is left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from common.errors import ConfigError, ModelError
from inference_worker.scoring.channel import Ahead
from inference_worker.scoring.chunks import padding
from inference_worker.scoring.columns import bind, check_types, text_types
from inference_worker.scoring.engine import Scorer
from inference_worker.scoring.facts import Facts
from inference_worker.scoring.flow import Encoder, Flow, Work
from inference_worker.scoring.folder import Folder
from inference_worker.scoring.leases import Leases
from inference_worker.scoring.plan import Plan
from inference_worker.scoring.readers import Cursor, Unreadable, batches, rows_of, schema_of
from inference_worker.scoring.results import chosen_outputs, distribution, kept_columns, table_of
from inference_worker.scoring.shards import Ledger, Shard
from inference_worker.scoring.sources import STDIN
from inference_worker.scoring.tally import Tally
from inference_worker.scoring.writers import files_of

#: Shards that are read ahead, that are encoded ahead, and that are being written.
AHEAD, WRITING = 1, 2
#: Where all shards that are left are in others' hands, they are asked after this often.
OTHERS_S, OWN_S = 1.0, 0.02


class TooManyErrors(ModelError):
    """More rows failed than --max-errors allows."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with what it takes to carry it out: how rows become inputs, and the ledger of shards."""

    plan: Plan
    facts: Facts
    encoder: Encoder
    columns: tuple[str, ...] | None
    ledger: Ledger
    unreadable: Mapping[str, str]

    def cursor(self, index: int) -> Cursor:
        """A source from its beginning."""
        source = self.plan.sources[index]
        return Cursor(source, self.columns, text_types(self.facts, self.plan.inputs, source.format))


def prepare(plan: Plan, facts: Facts, skip_files: bool = False) -> Prepared:
    """Check the whole input against the model before anything runs: columns, types, formats.

    Raises ConfigError naming column and row, Unreadable.
    """
    outputs = chosen_outputs(facts, plan.outputs)
    ledger = Ledger(plan.sources, plan.shard_rows)
    if plan.sources[0].path == STDIN:
        return _unseen(plan, facts, ledger)
    encoder: Encoder | None = None
    unreadable: dict[str, str] = {}
    columns: tuple[str, ...] = ()
    for index, source in enumerate(plan.sources):
        there = text_types(facts, plan.inputs, source.format)
        try:
            schema, total = schema_of(source, there), rows_of(source)
        except Unreadable as error:
            if not skip_files:
                raise
            unreadable[source.path] = str(error)
            ledger.ends(index, 0)
            continue
        bound = bind(facts, plan.inputs, schema)
        kept = kept_columns(plan.keep, schema.names, outputs)
        if total is not None:
            ledger.ends(index, total)
        if encoder is None:
            columns = tuple(dict.fromkeys((*(one.column for one in bound), *kept)))
            head = next(batches(source, columns, there), None)
            if head is not None:
                check_types(bound, pa.Table.from_batches([head]), f"'{source.path}'")
            encoder = Encoder(bound, outputs, kept, plan.cut, facts.pads)
        elif missing := [name for name in columns if name not in schema.names]:
            raise ConfigError(f"'{source.path}' has no column '{missing[0]}', which '{plan.sources[0].path}' has")
    if encoder is None:
        raise Unreadable(f"not one file of the input can be read: {next(iter(unreadable.values()))}")
    return Prepared(plan, facts, encoder, columns, ledger, unreadable)


def _unseen(plan: Plan, facts: Facts, ledger: Ledger) -> Prepared:
    """Standard input is looked at only when it is read: what is taken of it does not come back."""
    names = ["text"] if plan.sources[0].format == "text" else []
    schema = pa.schema(
        [(name, pa.string()) for name in names or [plan.inputs.get(one.name, one.name) for one in facts.inputs]]
    )
    outputs = chosen_outputs(facts, plan.outputs)
    bound = bind(facts, plan.inputs, schema)
    kept = kept_columns(plan.keep, schema.names, outputs)
    return Prepared(plan, facts, Encoder(bound, outputs, kept, plan.cut, facts.pads), None, ledger, {})


class Job:
    """Carries out a plan. Many processes may do so at once, into one folder, where they share leases."""

    def __init__(
        self,
        prepared: Prepared,
        folder: Folder,
        scorer: Scorer,
        leases: Leases,
        tally: Tally,
        *,
        tick: Callable[[], None],
        max_errors: int | None = None,
        skip_files: bool = False,
    ) -> None:
        self._prepared, self._plan = prepared, prepared.plan
        self._folder, self._scorer, self._leases, self._tally = folder, scorer, leases, tally
        self._max_errors = max_errors
        self._skip_files = skip_files
        self._tick = tick
        self._flow = Flow(scorer, tally, self._look, self._plan.errors == "fail")
        self._writing: deque[Future[None]] = deque()
        #: Files that could not be read to their end, and why.
        self.unreadable = dict(prepared.unreadable)

    def run(self) -> None:
        """Until all shards are finished, by whomever. Raises whatever ends the job; what is finished stays."""
        read = Ahead(self._read(), AHEAD, "score-read")
        encoded = Ahead(self._encode(read), AHEAD, "score-encode", poll_s=0)
        writer = ThreadPoolExecutor(1, "score-write")
        try:
            for work in self._flow.run(encoded):
                self._count(work)
                self._writing.append(writer.submit(self._write, work))
                while len(self._writing) > WRITING:
                    self._writing.popleft().result()
            while self._writing:
                self._writing.popleft().result()
        finally:
            read.close()
            encoded.close()
            writer.shutdown(wait=True, cancel_futures=True)

    def _look(self) -> None:
        """Raises what went wrong in writing, and what `tick` raises."""
        while self._writing and self._writing[0].done():
            self._writing.popleft().result()
        self._tick()

    def _read(self) -> Iterator[tuple[Shard, pa.Table] | None]:
        """The shards that are ours, until none is left to anybody; None as long as all of these are in work."""
        ledger = self._prepared.ledger
        self._folder.refresh(ledger)
        while True:
            for source in range(len(self._plan.sources)):
                yield from self._read_source(source)
            if ledger.complete() or self._folder.manifest() is not None:
                return
            # What is left is in flight here, or in other hands; or these have let go of it.
            yield None
            time.sleep(OTHERS_S if self._leases.shared else OWN_S)
            if self._leases.shared:
                self._folder.refresh(ledger)

    def _read_source(self, index: int) -> Iterator[tuple[Shard, pa.Table]]:
        source, ledger = self._plan.sources[index], self._prepared.ledger
        cursor = self._prepared.cursor(index)
        for shard in ledger.left(index):
            if not self._claim(shard):
                continue
            try:
                table = cursor.read(shard.start, shard.rows)
            except Unreadable as error:
                self._leases.release(shard.name)
                if not self._skip_files:
                    raise
                self.unreadable[source.path] = str(error)
                self._ends(index, shard.start)
                return
            if table is None:
                self._leases.release(shard.name)
                self._ends(index, cursor.position)
                return
            yield shard, table

    def _claim(self, shard: Shard) -> bool:
        if not self._leases.claim(shard.name):
            return False
        if self._leases.shared and self._folder.has(shard.name):
            # Another process finished it since the folder was looked at.
            self._prepared.ledger.finished.add(shard.name)
            self._leases.release(shard.name)
            return False
        return True

    def _ends(self, index: int, rows: int) -> None:
        self._prepared.ledger.ends(index, rows)
        self._folder.end(index, rows)

    def _encode(self, read: Ahead[tuple[Shard, pa.Table]]) -> Iterator[Work | None]:
        for item in read:
            yield None if item is None else self._prepared.encoder(*item)

    def _count(self, work: Work) -> None:
        """Raises TooManyErrors."""
        self._tally.failed(work.gathered.errors, len(work.inputs.errors))
        if self._max_errors is not None and self._tally.errors > self._max_errors:
            [(why, _)] = self._tally.messages.most_common(1)
            raise TooManyErrors(
                f"{self._tally.errors} rows failed, and --max-errors allows {self._max_errors}; most often: {why}"
            )

    def _write(self, work: Work) -> None:
        table = table_of(work.kept, work.gathered, self._plan.errors)
        files = files_of(table, self._plan.format, work.shard.name)
        self._folder.save(work.shard, files, _record(work, table))
        self._prepared.ledger.finished.add(work.shard.name)
        self._leases.release(work.shard.name)
        names = [one.name for one in self._prepared.encoder.outputs]
        self._tally.finished(table.nbytes, distribution(table, names))


def _record(work: Work, table: pa.Table) -> dict[str, Any]:
    return {
        "source": work.shard.source,
        "start": work.shard.start,
        "rows": work.inputs.rows,
        "written": table.num_rows,
        "errors": len(work.gathered.errors),
        "batches": len(work.chunks),
        "padding_ratio": round(padding(work.chunks, work.inputs.sizes), 4),
        "compute_s": round(work.seconds, 4),
        "seconds": round(time.monotonic() - work.started_s, 4),
    }


def manifest_of(
    plan: Plan, records: Sequence[Mapping[str, Any]], command: str, unreadable: Mapping[str, str]
) -> dict[str, Any]:
    """What a complete job leaves behind of itself. All that differs from run to run is in `shards` and `command`."""
    return {
        "plan": plan.to_json(),
        "rows": sum(one["rows"] for one in records),
        "errors": sum(one["errors"] for one in records),
        "unreadable": dict(unreadable),
        "command": command,
        "shards": list(records),
    }
