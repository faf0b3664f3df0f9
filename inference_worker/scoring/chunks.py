"""A shard's rows to chunks of like length. Pure, and a function of the rows alone.

Whatever else runs, whoever runs it, and however often it was killed before: the same shard gives the same chunks, and
so its results the same bytes. That is why nothing here is learned from what batches take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference_worker.scoring.facts import Cut

Indices = npt.NDArray[np.int64]

#: A chunk is one request: more bytes hold up others, and Redis.
MOST_BYTES = 4 * 1024 * 1024
#: Batches of a model that pads nothing that travel as one chunk: the queue then costs nothing per row.
BATCHES = 16
MOST_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of each row: its `length` in elements or bytes, and the number of its `shape`. Rows of two shapes never mix."""

    length: npt.NDArray[np.int64]
    shape: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]


def cut(rows: Indices, sizes: Sizes, by: Cut, pads: bool) -> Iterator[Indices]:
    """Chunks of `rows`: of like length where the model pads, else in order, several of its batches in one."""
    if not len(rows):
        return
    key = (rows, sizes.length[rows], sizes.shape[rows]) if pads else (rows, sizes.shape[rows])
    # The longest first: what does not fit into memory shows at once, and short ones fill the end.
    ordered = rows[np.lexsort(key)][::-1] if pads else rows[np.lexsort(key)]
    most = by.rows if pads else max(by.rows, min(by.rows * BATCHES, MOST_ROWS))
    start = 0
    while start < len(ordered):
        stop = start + _fitting(ordered[start : start + most], sizes, by.length if pads else None)
        yield ordered[start:stop]
        start = stop


def _fitting(rows: Indices, sizes: Sizes, length: int | None) -> int:
    """How many of the first rows make a chunk; at least one."""
    fits = sizes.shape[rows] == sizes.shape[rows[0]]
    fits &= np.cumsum(sizes.bytes[rows]) <= MOST_BYTES
    if length is not None:
        longest = np.maximum.accumulate(sizes.length[rows])
        fits &= longest * np.arange(1, len(rows) + 1) <= length
    fits[0] = True
    return len(fits) if fits.all() else int(np.argmin(fits))


def halves(rows: Indices) -> tuple[Indices, Indices]:
    """A chunk that failed, to find the row at fault."""
    middle = len(rows) // 2
    return rows[:middle], rows[middle:]


def padding(chunks: Sequence[Indices], sizes: Sizes) -> float:
    """The share of the elements that is no padding."""
    useful = sum(int(sizes.length[one].sum()) for one in chunks)
    filled = sum(int(sizes.length[one].max()) * len(one) for one in chunks)
    return useful / filled if filled else 1.0
