"""Cut a batch that failed in two, so that one bad item never fails its batch-mates. Pure."""

from __future__ import annotations

from dataclasses import replace

from inference_worker.item import Batch, Part, Reason, batch_of


def halves(batch: Batch) -> tuple[Batch, Batch] | None:
    """Two halves to run again, the first not the larger, or None for a single part: then it is the culprit.

    Where the first half has run, a single culprit is in the second, which need not run as a whole: so it is found
    among n parts in at most 2 * log2(n) + 1 more runs.
    """
    if len(batch.parts) == 1:
        return None
    middle = len(batch.parts) // 2
    return _piece(*batch.parts[:middle]), _piece(*batch.parts[middle:])


def smaller(batch: Batch) -> tuple[Batch, Batch] | None:
    """The halves of a batch that was too large, of a single part by its rows; None for a single row."""
    if batch.rows == 1 or len(batch.parts) > 1:
        return halves(batch)
    part = batch.parts[0]
    middle = part.rows // 2
    return _piece(_rows(part, 0, middle)), _piece(_rows(part, middle, part.rows))


def _rows(part: Part, start: int, stop: int) -> Part:
    arrays = {name: array[start:stop] for name, array in part.arrays.items()}
    return replace(part, start=part.start + start, rows=stop - start, arrays=arrays)


def _piece(*parts: Part) -> Batch:
    return batch_of(parts, Reason.APART)
