"""A sample of the input scored and thrown away, to say what the whole will take."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from inference_worker.scoring.flow import Flow
from inference_worker.scoring.job import prepare
from inference_worker.scoring.results import table_of
from inference_worker.scoring.run import Options, open_scorer, plan_of
from inference_worker.scoring.shards import shard
from inference_worker.scoring.sources import find_sources
from inference_worker.scoring.tally import Tally
from inference_worker.scoring.writers import files_of


@dataclass(frozen=True, slots=True)
class Estimate:
    """`rows` is None where the input has to be read to know; `guessed` from its size in bytes where not."""

    sampled: int
    seconds: float
    rows_per_s: float
    rows: int | None
    guessed: bool
    whole_s: float | None
    bytes: float | None
    padding_ratio: float
    errors: int


def estimate(options: Options, rows: int) -> Estimate:
    """Score the first `rows` rows of the input. Writes nothing. Raises as `run` does."""
    sources = find_sources(options.inputs, options.read_as)
    scorer = open_scorer(options, lambda line: None)
    try:
        plan = plan_of(options, scorer.facts, sources)
        prepared = prepare(plan, scorer.facts)
        table = prepared.cursor(0).read(0, rows)
        if table is None:
            return Estimate(0, 0.0, 0.0, 0, False, 0.0, 0, 1.0, 0)
        tally = Tally()
        work = prepared.encoder(shard(0, sources[0], 0, rows), table)
        [done] = Flow(scorer, tally, lambda: None).run([work])
        seconds = tally.elapsed_s
        size = _bytes(table_of(done.kept, done.gathered, plan.errors), plan.format)
    finally:
        scorer.close()
    total = prepared.ledger.total()
    guess = None if total is not None else _guess(sum(one.size for one in sources), table)
    whole = total if total is not None else guess
    share = None if whole is None else whole / table.num_rows
    return Estimate(
        table.num_rows, seconds, table.num_rows / seconds, whole, total is None,
        None if share is None else seconds * share, None if share is None else size * share,
        tally.padding_ratio, len(done.gathered.errors),
    )  # fmt: skip


def _guess(size: int, table: pa.Table) -> int | None:
    """Rows of text files by their bytes; None for standard input, whose size nobody knows."""
    return int(size / max(1, table.nbytes) * table.num_rows) if size else None


def _bytes(table: pa.Table, form: str) -> int:
    total = 0
    for write in files_of(table, form, "sample").values():
        sink = pa.BufferOutputStream()
        write(sink)
        total += sink.getvalue().size
    return total
