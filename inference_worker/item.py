"""What travels through a worker: an Item is one request, a Part some of its rows, a Batch parts that run together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import reduce
from math import inf

from common.protocol import Request
from common.records import record
from common.scripts import Entry
from common.tensor import Array
from inference_worker.backends.base import ModelRequest
from inference_worker.batching.padding import Shapes, longest, widest
from inference_worker.models.registry import Loaded

#: What parts must share to run in one batch: the model, and of each input its name, dtype and fixed sizes.
Signature = tuple[object, ...]


@record(eq=False)
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

    @property
    def deadline_s(self) -> float:
        """The deadline by this process's monotonic clock; infinite without one."""
        timeout_ms = self.request.timeout_ms
        return inf if timeout_ms is None else self.taken_s + timeout_ms / 1000 - self.queue_us / 1e6


@record(eq=False)
class Part:
    """The `rows` rows of an item from `start` on, ready for its model. Each array has those rows first.

    `shapes` are those of its padded arrays' rows, `length` the size of the longest of these; () and 0 where nothing
    is padded. `order`: parts of a lower order go first. `deadline_s` is the item's.
    """

    item: Item
    start: int
    rows: int
    arrays: Mapping[str, Array]
    signature: Signature
    shapes: Shapes
    length: int
    order: float
    deadline_s: float
    own: bool = False

    @property
    def useful(self) -> int:
        """Its elements without padding; its rows where nothing is padded."""
        return self.rows * (self.length or 1)

    @property
    def alone(self) -> bool:
        """It runs without batch-mates: its request asks for that, or a worker died with it, and may again."""
        return self.own or self.suspect

    @property
    def suspect(self) -> bool:
        """A worker died with it."""
        return self.item.entry.deliveries > 0


class Reason(StrEnum):
    """Why a batch went out as it is and not larger, in the words that `status` prints."""

    IDLE = "idle"  # the device was free, and that was all there was
    FULL = "full"  # the rows that the model allows
    TOKENS = "tokens"  # the padded elements that it allows
    BYTES = "bytes"  # the bytes that it allows
    CEILING = "ceiling"  # larger ones missed the target or did not fit into memory
    COST = "cost"  # the others pay more in another batch
    TRIAL = "trial"  # what batches of this size cost is not known
    DEADLINE = "deadline"  # with more it would be late
    LINGER = "linger"  # the wait for more was over
    ALONE = "alone"  # its request asks for that, or a worker died with it
    APART = "apart"  # a piece of a batch that failed or did not fit into memory


@record(eq=False)
class Batch:
    """Parts of one signature that run as one call of their model."""

    parts: tuple[Part, ...]
    rows: int
    reason: Reason

    @property
    def size(self) -> int:
        """Its elements with all padding; its rows where nothing is padded."""
        first = self.parts[0].shapes
        return self.rows * row_size(reduce(widest, (part.shapes for part in self.parts), first)) if first else self.rows

    @property
    def useful(self) -> int:
        return sum(part.useful for part in self.parts) if self.parts[0].shapes else self.rows

    @property
    def loaded(self) -> Loaded:
        return self.parts[0].item.loaded

    @property
    def suspect(self) -> bool:
        """A worker died with it, so that it runs alone: `Part.alone`."""
        return self.parts[0].suspect


def row_size(shapes: Shapes) -> int:
    """Elements of a row that is filled up to `shapes`: what a model's cost may follow. 1 where nothing is padded."""
    return longest(shapes) or 1


def batch_of(parts: Sequence[Part], reason: Reason = Reason.IDLE) -> Batch:
    return Batch(tuple(parts), sum(part.rows for part in parts), reason)
