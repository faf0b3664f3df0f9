"""What a runner has done since its start, for `status`."""

from __future__ import annotations

from collections import Counter

from inference_worker.item import Batch, Reason


class Tally:
    """Counts the batches that ran. Written by the runner's thread alone.

    `useful` and `padded` are elements of padded arrays without and with their padding; their ratio is the share of
    the device's work that was not padding. What no model pads counts in neither. `busy_s` are the seconds in which
    models ran, `waited_s` those that each batch's first request had waited since it was sent.
    """

    def __init__(self) -> None:
        self.batches = self.rows = self.useful = self.padded = 0
        self.busy_s = self.waited_s = 0.0
        self._reasons: Counter[Reason] = Counter()

    def add(self, batch: Batch, started_s: float, seconds: float) -> None:
        """It ran without an error, from `started_s` on by the monotonic clock, for `seconds`."""
        self.batches += 1
        self.busy_s += seconds
        first = batch.parts[0].item
        self.waited_s += started_s - first.taken_s + first.queue_us / 1e6
        self.rows += batch.rows
        self._reasons[batch.reason] += 1
        if batch.parts[0].shapes:
            self.useful += batch.useful
            self.padded += batch.size

    def reasons(self) -> dict[str, int]:
        """How many batches went out for each reason; those of which there was none are left out."""
        # Another thread asks: a copy first, since the counter may grow meanwhile.
        return {reason.value: count for reason, count in self._reasons.copy().items()}
