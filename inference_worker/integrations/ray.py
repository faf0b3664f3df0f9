"""Ray Data: `dataset.map_batches(Scorer, ...)`, a pool of actors that keep the model.

from inference_worker.integrations.ray import Scorer

scored = dataset.map_batches(
    Scorer,
    fn_constructor_kwargs={"model": "minilm", "models": "examples/models", "inputs": {"text": "review"}},
    batch_format="pyarrow", batch_size=4096, compute=ray.data.ActorPoolStrategy(size=4),
)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference_worker.integrations.resident import Task, score_table

if TYPE_CHECKING:
    import pyarrow as pa


class Scorer:
    """One actor's model. Its arguments are those of `Task`; batches must come as `batch_format="pyarrow"`."""

    def __init__(self, **task: Any) -> None:
        self._task = Task(**task)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return score_table(self._task, batch)
