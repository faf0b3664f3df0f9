"""What a runner has done since its start, for `status`."""

from __future__ import annotations

from collections import Counter

from inference_worker.item import Batch, Reason


class Tally:
    """Counts the batches that ran. Written by the runner's thread alone.

    `useful` and `padded` are elements of padded arrays without and with their padding; their ratio is the share of
    the device's work that was not padding. What no model pads counts in neither.
    """

    def __init__(self) -> None:
        self.batches = self.rows = self.useful = self.padded = 0
        self._reasons: Counter[Reason] = Counter()

    def add(self, batch: Batch) -> None:
        self.batches += 1
        self.rows += batch.rows
        self._reasons[batch.reason] += 1
        if batch.parts[0].shapes:
            self.useful += batch.useful
            self.padded += batch.size

    def reasons(self) -> dict[str, int]:
        """How many batches went out for each reason; those of which there was none are left out."""
        # Another thread asks: a copy first, since the counter may grow meanwhile.
        return {reason.value: count for reason, count in self._reasons.copy().items()}
