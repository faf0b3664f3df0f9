"""What travels through a worker: an Item is one request, a Part some of its rows, a Batch parts that run together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.protocol import Request
from common.scripts import Entry
from common.tensor import Array
from inference_worker.backends.base import ModelRequest
from inference_worker.registry import Loaded

#: What parts must share to run in one batch: the model, and of each input its name, dtype and fixed sizes.
Signature = tuple[object, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One request in a worker's hands.

    `single`: its inputs came without a rows dimension, so its outputs leave without one.
    `deadline_ms` is in Redis's clock, `taken_s` in this process's monotonic one.
    """

    entry: Entry
    request: Request
    loaded: Loaded
    model_request: ModelRequest
    single: bool
    keep_ms: int
    deadline_ms: int | None
    taken_s: float
    queue_us: int


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The `rows` rows of an item from `start` on, ready for its model. Each array has those rows first.

    `length` is the size of one row of the longest padded array, 0 where nothing is padded.
    `order`: parts of a lower order go first.
    """

    item: Item
    start: int
    rows: int
    arrays: Mapping[str, Array]
    signature: Signature
    length: int
    order: float

    @property
    def alone(self) -> bool:
        """A worker died with it before: it runs without batch-mates, so that a crash costs only itself."""
        return self.item.entry.deliveries > 0


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Parts of one signature that run as one call of their model."""

    parts: tuple[Part, ...]
    rows: int

    @property
    def loaded(self) -> Loaded:
        return self.parts[0].item.loaded


def batch_of(parts: Sequence[Part]) -> Batch:
    return Batch(tuple(parts), sum(part.rows for part in parts))
