"""Which of the held parts run next, and together. Pure: no clock, no thread, no torch.

Composition matters more than size: parts of like length lose little to padding. So the part that is
due first leads, and takes along those of its signature whose lengths are nearest to its own.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence

from inference_worker.item import Batch, Part, Signature, batch_of
from inference_worker.spec import BatchLimits


class Batcher:
    """Holds parts, grouped by signature and sorted by length within a group."""

    def __init__(self) -> None:
        self._groups: dict[Signature, list[Part]] = {}
        self.rows = 0

    def add(self, part: Part) -> None:
        # Equal lengths keep their order of arrival: insort puts a new one to the right.
        insort(self._groups.setdefault(part.signature, []), part, key=_length)
        self.rows += part.rows

    def next(self, now_s: float) -> Batch | None:
        """The batch to run now, no longer held; None where nothing is held or all of it may linger."""
        due = [group for group in self._groups.values() if _lingers_until(group) <= now_s]
        if not due:
            return None
        group = min(due, key=_first_order)
        leader = min(range(len(group)), key=lambda index: group[index].order)
        start, stop = _companions(group, leader)
        batch = batch_of(group[start:stop])
        del group[start:stop]
        self._removed(batch.parts)
        return batch

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until a lingering group is due; None where nothing is held."""
        if not self._groups:
            return None
        return max(0.0, min(_lingers_until(group) for group in self._groups.values()) - now_s)

    def __iter__(self) -> Iterator[Part]:
        for group in self._groups.values():
            yield from group

    def drop(self, unwanted: Callable[[Part], bool]) -> list[Part]:
        """Take out the parts that need no longer run."""
        dropped = [part for part in self if unwanted(part)]
        if dropped:
            gone = set(dropped)
            for group in self._groups.values():
                group[:] = [part for part in group if part not in gone]
            self._removed(dropped)
        return dropped

    def _removed(self, parts: Sequence[Part]) -> None:
        self.rows -= sum(part.rows for part in parts)
        for signature in {part.signature for part in parts}:
            if not self._groups[signature]:
                del self._groups[signature]


def _length(part: Part) -> int:
    return part.length


def _first_order(group: list[Part]) -> float:
    return min(part.order for part in group)


def _limits(group: list[Part]) -> BatchLimits:
    return group[0].item.loaded.spec.batch


def _lingers_until(group: list[Part]) -> float:
    """The moment from which a group may leave: at once where its model sets no linger or it fills a batch."""
    limits = _limits(group)
    if limits.linger_ms <= 0 or sum(part.rows for part in group) >= limits.rows:
        return 0.0
    return min(part.item.taken_s for part in group) + limits.linger_ms / 1000


def _companions(group: list[Part], leader: int) -> tuple[int, int]:
    """The run of `group` around `leader` that fits into the limits, grown to the side nearer in length."""
    limits = _limits(group)
    start, stop = leader, leader + 1
    rows, longest = group[leader].rows, group[leader].length
    if group[leader].alone:
        return start, stop
    while True:
        side = _nearer_side(group, start, stop, group[leader].length)
        if side is None:
            return start, stop
        part = group[side]
        longest = max(longest, part.length)
        rows += part.rows
        if part.alone or rows > limits.rows or (limits.padded is not None and longest * rows > limits.padded):
            return start, stop
        start, stop = min(start, side), max(stop, side + 1)


def _nearer_side(group: list[Part], start: int, stop: int, length: int) -> int | None:
    if start == 0:
        return stop if stop < len(group) else None
    # On a tie the longer one: it pads nobody, and the older of equal length stand to the left.
    if stop < len(group) and group[stop].length - length <= length - group[start - 1].length:
        return stop
    return start - 1
