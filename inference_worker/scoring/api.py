"""`score(data, model)`: data in memory, or a stream of it, through a model; what comes back is of the same kind.

| data | result |
| --- | --- |
| pyarrow Table | Table |
| pandas, polars DataFrame | DataFrame; pandas keeps its index |
| datasets Dataset | Dataset |
| any other iterable of maps, or of single values | an iterator of maps, read a window at a time |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from common.errors import ConfigError
from common.keys import DEFAULT_POOL
from common.local import default_broker
from inference_worker.scoring.columns import bind, check_types
from inference_worker.scoring.engine import Scorer
from inference_worker.scoring.facts import default_cut
from inference_worker.scoring.flow import Encoder, Flow
from inference_worker.scoring.results import chosen_outputs, kept_columns, table_of
from inference_worker.scoring.run import SHARD_ROWS, Options, open_scorer
from inference_worker.scoring.shards import Shard
from inference_worker.scoring.tally import Tally

#: The column of single values.
VALUE = "value"


def score(
    data: Any,
    model: str,
    *,
    local: str | None = None,
    version: str | None = None,
    device: str = "cpu",
    threads: int = 0,
    broker_url: str | None = None,
    pool: str = DEFAULT_POOL,
    inputs: Mapping[str, str] | None = None,
    outputs: Sequence[str] = (),
    keep: Sequence[str] = ("*",),
    on_error: str = "keep",
    parameters: Mapping[str, Any] | None = None,
) -> Any:
    """Score `data` by `model`: of the repository `local` in this process, else by the pool's workers through Redis.

    `inputs` says which column is an input of the model, `keep` which columns stand beside its `outputs`. A row that
    fails has nulls, and its error in the column `_errors` (`on_error="keep"`), is left out ("skip") or raises ("fail").

    Raises ConfigError, RowFailed, ModelNotFound, BrokerUnavailable.
    """
    if on_error not in ("keep", "skip", "fail"):
        raise ConfigError(f"on_error must be 'keep', 'skip' or 'fail'; got {on_error!r}")
    options = Options(
        model, (), "", local, version, device, threads, broker_url or default_broker(), pool,
        outputs=tuple(outputs), parameters=parameters or {},
    )  # fmt: skip
    wish = Wish(dict(inputs or {}), tuple(outputs), tuple(keep), on_error)
    kind = _kind_of(data)
    if kind is None:
        return _stream(data, options, wish)
    scorer = open_scorer(options, lambda line: None)
    try:
        return kind.back(pa.concat_tables(score_tables([kind.table], scorer, wish)), data)
    finally:
        scorer.close()


@dataclass(frozen=True, slots=True)
class Wish:
    """Which columns go in, which come out, and what becomes of bad rows."""

    inputs: Mapping[str, str]
    outputs: tuple[str, ...]
    keep: tuple[str, ...]
    errors: str


def score_tables(tables: Iterable[pa.Table], scorer: Scorer, wish: Wish) -> Iterator[pa.Table]:
    """Each table's rows with their results, in order. All have the first one's columns."""
    encoder: Encoder | None = None
    for table in tables:
        encoder = encoder or encoder_of(table, scorer, wish)
        flow = Flow(scorer, Tally(), lambda: None, wish.errors == "fail")
        works = (_work(encoder, table, start) for start in range(0, max(1, table.num_rows), SHARD_ROWS))
        done = sorted(flow.run(works), key=lambda work: work.shard.start)
        yield pa.concat_tables([table_of(work.kept, work.gathered, wish.errors) for work in done])


def encoder_of(table: pa.Table, scorer: Scorer, wish: Wish) -> Encoder:
    """How rows of such a table become inputs. Raises ConfigError."""
    facts = scorer.facts
    outputs = chosen_outputs(facts, wish.outputs)
    bound = bind(facts, wish.inputs, table.schema)
    check_types(bound, table.slice(0, SHARD_ROWS), "the data")
    kept = kept_columns(wish.keep, table.schema.names, outputs)
    return Encoder(bound, outputs, kept, default_cut(facts), facts.pads)


def _work(encoder: Encoder, table: pa.Table, start: int) -> Any:
    part = table.slice(start, SHARD_ROWS)
    return encoder(Shard(0, start // SHARD_ROWS, start, part.num_rows, "data-0"), part)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Data as a table, and the way back from a table to its kind."""

    table: pa.Table
    name: str

    def back(self, table: pa.Table, data: Any) -> Any:
        if self.name == "pandas":
            frame = table.to_pandas()
            return frame.set_index(data.index) if len(frame) == len(data) else frame
        if self.name == "polars":
            import polars

            return polars.from_arrow(table)
        if self.name == "datasets":
            from datasets import Dataset

            return Dataset(table)
        return table


def _kind_of(data: Any) -> _Kind | None:
    """What `data` is, without importing what it is not; None for an iterable."""
    name = type(data).__module__.partition(".")[0]
    if isinstance(data, pa.Table):
        return _Kind(data, "pyarrow")
    if name == "pandas" and hasattr(data, "columns"):
        return _Kind(pa.Table.from_pandas(data, preserve_index=False), name)
    if name == "polars" and hasattr(data, "to_arrow"):
        return _Kind(data.to_arrow(), name)
    if name == "datasets" and hasattr(data, "with_format"):
        return _Kind(data.with_format("arrow")[:], name)
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes, Mapping)):
        raise ConfigError(
            f"data must be a pyarrow Table, a DataFrame, a Dataset, or an iterable of maps or values; "
            f"got {type(data).__name__}"
        )
    return None


def _stream(data: Iterable[Any], options: Options, wish: Wish) -> Iterator[dict[str, Any]]:
    """Rows as they come, a window of them at a time. The model is loaded with the first, and closed at the end."""
    scorer = open_scorer(options, lambda line: None)
    try:
        for table in score_tables(_windows(iter(data)), scorer, wish):
            yield from table.to_pylist()
    finally:
        scorer.close()


def _windows(rows: Iterator[Any]) -> Iterator[pa.Table]:
    while window := list(islice(rows, SHARD_ROWS)):
        yield pa.Table.from_pylist([row if isinstance(row, Mapping) else {VALUE: row} for row in window])
