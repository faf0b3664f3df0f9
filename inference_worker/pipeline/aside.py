"""Items in a stage beside the runner: how many wait, and the room that they take. Thread-safe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from threading import Condition

from common.versions import label_of
from inference_worker.holding import Holding
from inference_worker.item import Item
from inference_worker.models.registry import key_of
from inference_worker.prepare import order_of


class Aside:
    """One step, "preprocess" or "postprocess", of the items whose models have threads of their own for it.

    Until the step is done with an item its rows take room in the holding: so the intake takes no more than the
    slowest step can follow, and nobody waits for a place in a stage.
    """

    def __init__(self, step: str, holding: Holding) -> None:
        self._step = step
        self._holding = holding
        self._changed = Condition()
        self._waiting: set[Item] = set()
        self._inside = 0

    def put(self, item: Item, work: Callable[[Item], None]) -> None:
        """Have the item's stage call `work(item)` when its turn has come, unless it is taken back before."""
        self._holding.reserve(item.model_request.rows)
        with self._changed:
            self._waiting.add(item)
            self._inside += 1
        item.loaded.backend.stages[self._step].put(order_of(item, item.deadline_s), partial(self._begin, item, work))

    def take_back(self) -> list[Item]:
        """Those that have not begun; nothing more is done with them here."""
        with self._changed:
            waiting, self._waiting = self._waiting, set()
        for item in waiting:
            self._end(item)
        return list(waiting)

    def join(self) -> None:
        """Wait until there is nothing left here."""
        with self._changed:
            self._changed.wait_for(lambda: not self._inside)

    def counts(self) -> dict[str, int]:
        """How many wait, by model and step; models for which none does are left out."""
        with self._changed:
            found = Counter(label_of(*key_of(item.loaded.spec)) for item in self._waiting)
        return {f"{label} {self._step}": number for label, number in found.items()}

    def _begin(self, item: Item, work: Callable[[Item], None]) -> None:
        with self._changed:
            if item not in self._waiting:
                return  # It was taken back.
            self._waiting.remove(item)
        work(item)
        self._end(item)

    def _end(self, item: Item) -> None:
        self._holding.free(item.model_request.rows)
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()
