"""Which of the held parts run next, and together. Pure: no clock, no thread, no torch.

The group whose part is due first is next, and that part leads its batch: so nothing starves. What goes along is
chosen in composition.py by what was learned of the model, and told here by `ran` and `out_of_memory`.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from math import inf

from inference_worker.batching.composition import Cut, compose
from inference_worker.batching.experience import Experience, Experiences
from inference_worker.item import Batch, Part, Reason, Signature, batch_of

Group = list[Part]


class Batcher:
    """Holds parts, grouped by signature. A group is sorted by length, and where nothing is padded by order."""

    def __init__(self) -> None:
        self._groups: dict[Signature, Group] = {}
        self._experiences = Experiences()
        self._asked: tuple[Part, Experience] | None = None
        self.rows = 0

    def add(self, part: Part) -> None:
        name = _group_of(part)
        group = self._groups.get(name)
        if group is None:
            self._groups[name] = [part]
        else:
            # What is equal keeps its order of arrival: insort puts a new one to the right.
            insort(group, part, key=_length if part.shapes else _order)
        self.rows += part.rows

    def next(self, now_s: float) -> Batch | None:
        """The batch to run now, no longer held; None where nothing is held or all of it may linger."""
        due = [group for group in self._groups.values() if self._lingers_until(group)[0] <= now_s]
        if not due:
            return None
        group = due[0] if len(due) == 1 else min(due, key=_first_order)
        cut = self._cut(group, now_s)
        batch = batch_of(group[cut.start : cut.stop], cut.reason)
        del group[cut.start : cut.stop]
        if not group:
            del self._groups[_group_of(batch.parts[0])]
        self.rows -= batch.rows
        return batch

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until a lingering group is due; None where nothing is held."""
        if not self._groups:
            return None
        return max(0.0, min(self._lingers_until(group)[0] for group in self._groups.values()) - now_s)

    def fits(self, batch: Batch) -> bool:
        """False where batches of its size were too slow or did not fit into memory."""
        return batch.size <= self._experience(batch.parts[0]).ceiling.elements

    def expected_s(self, batch: Batch) -> float:
        """What a batch is thought to take; next to nothing before the first of its kind."""
        return self._experience(batch.parts[0]).cost.seconds(batch.size)

    def ran(self, batch: Batch, seconds: float) -> None:
        """Learn from a batch that ran."""
        experience, size, target_ms = self._experience(batch.parts[0]), batch.size, batch.loaded.spec.batch.target_ms
        experience.cost.learn(size, batch.useful, seconds)
        experience.ceiling.ran(size, seconds, None if target_ms is None else target_ms / 1000)

    def out_of_memory(self, batch: Batch) -> None:
        """Learn from a batch that did not fit."""
        self._experience(batch.parts[0]).ceiling.out_of_memory(batch.size)

    def __iter__(self) -> Iterator[Part]:
        for group in self._groups.values():
            yield from group

    def drop(self, unwanted: Callable[[Iterable[Part]], list[Part]]) -> list[Part]:
        """Take out the parts that need no longer run: `unwanted` chooses them among all that are held."""
        dropped = unwanted(self)
        if dropped:
            gone = set(dropped)
            kept = {name: [part for part in group if part not in gone] for name, group in self._groups.items()}
            self._groups = {name: group for name, group in kept.items() if group}
            self.rows -= sum(part.rows for part in dropped)
        return dropped

    def _cut(self, group: Group, now_s: float) -> Cut:
        if len(group) == 1 and not group[0].alone:
            return Cut(0, 1, self._lingers_until(group)[1])
        leader = min(range(len(group)), key=lambda index: group[index].order) if group[0].shapes else 0
        cut = compose(group, leader, self._experience(group[0]), now_s)
        if cut.reason is not Reason.IDLE:
            return cut
        return cut._replace(reason=self._lingers_until(group)[1])

    def _lingers_until(self, group: Group) -> tuple[float, Reason]:
        """The moment from which a group may leave, and why: at once where its model sets no linger.

        It does not wait past the slack of any deadline, for which a batch counts twice what it is thought to take, and
        never for more than half the time to it.
        """
        limits = group[0].item.loaded.spec.batch
        if limits.linger_ms <= 0:
            return 0.0, Reason.IDLE
        if sum(part.rows for part in group) >= limits.rows:
            return 0.0, Reason.FULL
        first_s = min(part.item.taken_s for part in group)
        over_s = first_s + limits.linger_ms / 1000
        deadline_s = min(part.deadline_s for part in group)
        if deadline_s == inf:
            return over_s, Reason.LINGER
        seconds = self._experience(group[0]).cost.seconds(batch_of(group).size)
        start_s = min(deadline_s - 2 * seconds, (first_s + deadline_s) / 2)
        return (over_s, Reason.LINGER) if over_s <= start_s else (start_s, Reason.DEADLINE)

    def _experience(self, part: Part) -> Experience:
        # `fits` and `ran` ask for one and the same batch.
        if self._asked is None or self._asked[0] is not part:
            self._asked = part, self._experiences.of(part.signature, part.item.loaded.spec)
        return self._asked[1]


def _group_of(part: Part) -> Signature:
    """A part that must run alone is a group of its own, so that it stands in no other part's way."""
    return (*part.signature, part) if part.alone else part.signature


def _length(part: Part) -> int:
    return part.length


def _order(part: Part) -> float:
    return part.order


def _first_order(group: Group) -> float:
    return min(part.order for part in group) if group[0].shapes else group[0].order
