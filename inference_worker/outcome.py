"""What became of an entry: the outcome of a part that ran, or a refusal of one that never could."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from common.errors import InferenceError, ModelError
from common.records import record
from common.scripts import Entry
from common.tensor import Array
from common.text import describe
from inference_worker.item import Item, Part
from inference_worker.models.registry import Loaded


@record(eq=False)
class Outcome:
    """One part's outputs with its rows first, or its error.

    `started_s` is monotonic; `compute_us` is the model's time for the whole batch of `batch_rows`.
    """

    part: Part
    outputs: Mapping[str, Array]
    error: InferenceError | None
    started_s: float
    compute_us: int
    batch_rows: int


class Refusal(NamedTuple):
    """An entry that never became an item: what is known of it, and why. With a `dead` reason it is kept."""

    entry: Entry
    request_id: str | None
    reply_to: str
    model: str
    error: InferenceError
    dead: str = ""
    trace: Mapping[str, str] | None = None


def failed(part: Part, error: InferenceError) -> Outcome:
    return Outcome(part, {}, error, time.monotonic(), 0, part.rows)


def refused(item: Item, error: InferenceError) -> Refusal:
    """Of an item that never runs."""
    request = item.request
    return Refusal(item.entry, request.id, request.reply_to or "", request.model, error, trace=request.trace)


def as_model_error(loaded: Loaded, error: Exception) -> InferenceError:
    """Whatever a model's own code raised, as one of ours."""
    if isinstance(error, InferenceError):
        return error
    return ModelError(f"model '{loaded.spec.name}:{loaded.spec.version}' failed: {describe(error)}")
