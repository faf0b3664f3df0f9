"""Dask: a DataFrame's partitions, each scored in whichever process holds it.

from inference_worker.integrations.dask import score

scored = score(frame, model="minilm", models="examples/models", inputs={"text": "review"})
"""

from __future__ import annotations

from typing import Any

from inference_worker.integrations.resident import Task, score_table


def score(frame: Any, **task: Any) -> Any:
    """A lazy DataFrame with the results beside the columns that are kept. Arguments are those of `Task`.

    The model is loaded here once to learn its columns, by an empty partition.
    """
    wanted = Task(**task)
    return frame.map_partitions(score_partition, wanted, meta=score_partition(frame._meta, wanted))


def score_partition(frame: Any, task: Task) -> Any:
    """One pandas DataFrame, its index kept. Rows cannot be left out: `on_error` is "keep" or "fail"."""
    import pyarrow as pa

    scored = score_table(task, pa.Table.from_pandas(frame, preserve_index=False)).to_pandas()
    return scored.set_index(frame.index)
