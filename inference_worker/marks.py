"""What need no longer run: items that were cancelled, and items whose deadline has passed."""

from __future__ import annotations

from common.errors import Cancelled, DeadlineExceeded, InferenceError
from inference_worker.clock import RedisClock
from inference_worker.item import Part


class Marks:
    """Looked at when a batch is collated: the last moment at which work can be saved."""

    def __init__(self, clock: RedisClock) -> None:
        self._clock = clock
        self._cancelled: frozenset[tuple[int, bytes]] = frozenset()

    def set_cancelled(self, entries: frozenset[tuple[int, bytes]]) -> None:
        self._cancelled = entries

    def unwanted(self, part: Part) -> bool:
        deadline = part.item.deadline_ms
        return self._is_cancelled(part) or (deadline is not None and deadline <= self._clock.now_ms())

    def reason(self, part: Part) -> InferenceError:
        """The error for a part that is unwanted."""
        if self._is_cancelled(part):
            return Cancelled("the request was cancelled before it ran")
        return overdue(part.item.request.timeout_ms or 0)

    def _is_cancelled(self, part: Part) -> bool:
        entry = part.item.entry
        return bool(self._cancelled) and (entry.stream, entry.id) in self._cancelled


def overdue(timeout_ms: int) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the request's {timeout_ms} ms passed while it waited to run; allow more time or add workers"
    )
