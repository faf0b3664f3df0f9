"""Spark: `frame.mapInArrow(scorer(...), schema)`, in Spark's Python workers.

from inference_worker.integrations.spark import scorer

scored = frame.mapInArrow(
    scorer(model="minilm", models="/shared/models", inputs={"text": "review"}, keep=["id"]),
    "id long, embedding array<float>, _errors string",
)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from inference_worker.integrations.resident import Task, score_table

if TYPE_CHECKING:
    import pyarrow as pa

    Batches = Iterator[pa.RecordBatch]


def scorer(**task: Any) -> Callable[[Batches], Batches]:
    """A function for `mapInArrow`. Arguments are those of `Task`. Fixed-size lists become lists, which Spark knows."""
    wanted = Task(**task)

    def score(batches: Batches) -> Batches:
        import pyarrow as pa

        for batch in batches:
            yield from _for_spark(score_table(wanted, pa.Table.from_batches([batch]))).to_batches()

    return score


def _for_spark(table: pa.Table) -> pa.Table:
    import pyarrow as pa

    kinds = [
        pa.field(field.name, pa.list_(field.type.value_type)) if pa.types.is_fixed_size_list(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(kinds))
