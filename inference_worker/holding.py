"""The bounded queue between intake and runner: items wait here, not closed batches. Thread-safe."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from threading import Condition

from inference_worker.batching.batcher import Batcher
from inference_worker.item import Batch, Item, Part

#: Room beside the capacity for requests that pass a tenant's backlog.
PASSING_ROWS = 64


class Holding:
    """A batcher shared by the intake, which adds, and the runner, which takes when its device is free."""

    def __init__(self, rows: int) -> None:
        self._capacity = rows
        self._batcher = Batcher()
        self._reserved = 0
        self._changed = Condition()
        self._closed = self._woken = False

    @property
    def closed(self) -> bool:
        return self._closed

    def add(self, parts: Iterable[Part]) -> bool:
        """False, and nothing is held, once it is closed."""
        with self._changed:
            if self._closed:
                return False
            for part in parts:
                self._batcher.add(part)
            self._changed.notify_all()
            return True

    @property
    def room(self) -> int:
        """Rows that may still be held; 0 once closed."""
        return 0 if self._closed else max(0, self._capacity - self._rows)

    @property
    def room_behind(self) -> int:
        """Rows that may be held beyond the capacity: others' requests, where one tenant's backlog fills it."""
        return 0 if self._closed else max(0, self._capacity + PASSING_ROWS - self._rows)

    @property
    def empty(self) -> bool:
        return self._batcher.rows == 0

    @property
    def reserved(self) -> int:
        """Rows of items that are in a stage beside the runner: they take room here."""
        return self._reserved

    def reserve(self, rows: int) -> None:
        with self._changed:
            self._reserved += rows

    def free(self, rows: int) -> None:
        with self._changed:
            self._reserved -= rows
            self._changed.notify_all()

    @property
    def _rows(self) -> int:
        return self._batcher.rows + self._reserved

    def wait_for_room(self, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.room > 0, timeout_s)

    def next_batch(self, unwanted: Callable[[Iterable[Part]], list[Part]]) -> tuple[Batch | None, list[Part]]:
        """The batch to run now, if there is one; and what `unwanted` chose among all that was held."""
        with self._changed:
            dropped = self._batcher.drop(unwanted)
            batch = self._batcher.next(time.monotonic())
            if batch is not None or dropped:
                self._changed.notify_all()
            return batch, dropped

    # What was learned is the runner's alone, and needs no lock.

    def fits(self, batch: Batch) -> bool:
        """False where a batch of its size was too slow or too large before."""
        return self._batcher.fits(batch)

    def expected_s(self, batch: Batch) -> float:
        """What it is thought to take."""
        return self._batcher.expected_s(batch)

    def ran(self, batch: Batch, seconds: float) -> None:
        self._batcher.ran(batch, seconds)

    def out_of_memory(self, batch: Batch) -> None:
        self._batcher.out_of_memory(batch)

    def wake(self) -> None:
        """Whoever took beside the runner does so no longer: it must not wait for what nobody brings."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def wait_for_batch(self) -> None:
        """Until there is one to run, somebody calls `wake`, or it is closed."""
        with self._changed:
            while not self._closed:
                if self._woken:
                    self._woken = False
                    return
                wait_s = self._batcher.wait_s(time.monotonic())
                if wait_s is not None and wait_s <= 0:
                    return
                self._changed.wait(wait_s)

    def close(self) -> list[Item]:
        """Take nothing more; the items of which nothing has run, no longer held. What has begun runs to its end."""
        with self._changed:
            self._closed = True
            rows = Counter[Item]()
            for part in self._batcher:
                rows[part.item] += part.rows
            whole = {item for item, held in rows.items() if held == item.model_request.rows}
            self._batcher.drop(lambda parts: [part for part in parts if part.item in whole])
            self._changed.notify_all()
            return list(whole)
