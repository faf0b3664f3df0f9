"""Find the bad one in a batch that failed, so that it never fails its batch-mates. Pure."""

from __future__ import annotations

from inference_worker.item import Batch, batch_of


def halves(batch: Batch) -> tuple[Batch, Batch] | None:
    """Two halves to run again, or None for a single part: then it is the culprit.

    Halving finds one culprit among n parts in at most 2 * log2(n) more runs.
    """
    if len(batch.parts) == 1:
        return None
    middle = len(batch.parts) // 2
    return batch_of(batch.parts[:middle]), batch_of(batch.parts[middle:])
