"""A model that an engine's process keeps between its tasks, and tables through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from inference_worker.scoring.local import LocalScorer, open_local

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Task:
    """What to score by, and which columns. Plain values: engines send it to their processes.

    `models` is a path or URL of a model repository that every process can read. `inputs` says which column is an input
    of the model; `keep` which columns stand beside the results, `*` all of them.
    """

    model: str
    models: str
    version: str | None = None
    device: str = "cpu"
    threads: int = 1
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    keep: Sequence[str] = ("*",)
    on_error: str = "keep"


def score_table(task: Task, table: pa.Table) -> pa.Table:
    """A table's rows with their results. The first call in a process loads the model. Raises ConfigError, RowFailed."""
    from inference_worker.scoring.api import Wish, score_tables

    wish = Wish(dict(task.inputs), tuple(task.outputs), tuple(task.keep), task.on_error)
    scorer = _resident(task.models, task.model, task.version, task.device, task.threads)
    [scored] = score_tables([table], scorer, wish)
    return scored


@lru_cache(maxsize=4)
def _resident(models: str, model: str, version: str | None, device: str, threads: int) -> LocalScorer:
    return open_local(models, model, version, device, threads)
