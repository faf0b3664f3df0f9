"""What need no longer run: items that were cancelled, and items whose deadline has passed."""

from __future__ import annotations

from collections.abc import Iterable

from common.errors import Cancelled, DeadlineExceeded, InferenceError
from common.scripts import Place
from inference_worker.clock import RedisClock
from inference_worker.item import Item, Part


class Marks:
    """Looked at when a batch is collated: the last moment at which work can be saved."""

    def __init__(self, clock: RedisClock) -> None:
        self._clock = clock
        self._cancelled: frozenset[Place] = frozenset()

    def set_cancelled(self, entries: frozenset[Place]) -> None:
        self._cancelled = entries

    def unwanted(self, parts: Iterable[Part]) -> list[Part]:
        """Those that need no longer run. Asked before each batch, of all that is held."""
        now_ms, cancelled = self._clock.now_ms(), self._cancelled
        return [
            part
            for part in parts
            if ((deadline_ms := part.item.deadline_ms) is not None and deadline_ms <= now_ms)
            or (cancelled and part.item.entry.place in cancelled)
        ]

    def reason(self, part: Part) -> InferenceError:
        """The error for a part that is unwanted."""
        return self._reason(part.item)

    def check(self, item: Item) -> InferenceError | None:
        """The error for an item that is unwanted; None for any other."""
        return self._reason(item) if self._is_unwanted(item) else None

    def _is_unwanted(self, item: Item) -> bool:
        deadline = item.deadline_ms
        return self._is_cancelled(item) or (deadline is not None and deadline <= self._clock.now_ms())

    def _reason(self, item: Item) -> InferenceError:
        if self._is_cancelled(item):
            return Cancelled("the request was cancelled before it ran")
        return overdue(item.request.timeout_ms or 0)

    def _is_cancelled(self, item: Item) -> bool:
        return bool(self._cancelled) and item.entry.place in self._cancelled


def overdue(timeout_ms: int) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the request's {timeout_ms} ms passed while it waited to run; allow more time or add workers"
    )
