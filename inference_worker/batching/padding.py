"""How large a batch is once its rows are filled up, and so how many rows it may have. Pure.

A row grows in each dimension to the longest of its batch: rows of shapes [1, n] and [n, 1] become n * n each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import prod

from common.tensor import Array
from inference_worker.models.spec import BatchLimits

#: The shape of one row of each padded array, in the order of the part's arrays; () where nothing is padded.
Shapes = tuple[tuple[int, ...], ...]

#: A batch's inputs may have so many bytes where its model sets no `padded`: several batches of the largest requests.
MOST_BYTES = 256 * 1024 * 1024


def row_shapes(arrays: Mapping[str, Array], pad: Mapping[str, float]) -> Shapes:
    """Of a part's arrays, rows first, those that are padded."""
    return tuple(array.shape[1:] for name, array in arrays.items() if name in pad) if pad else ()


@lru_cache(4096)  # a batch is chosen among the same few shapes again and again
def widest(one: Shapes, other: Shapes) -> Shapes:
    """What rows of either become in one batch: of every array the longer in each dimension."""
    if one == other:
        return one
    return tuple(filled([left, right]) for left, right in zip(one, other, strict=True))


def filled(shapes: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that holds all of `shapes`, which have one rank."""
    return tuple(map(max, zip(*shapes, strict=True)))


@lru_cache(4096)
def longest(shapes: Shapes) -> int:
    """Elements of one row of the longest padded array; 0 where nothing is padded."""
    return max(map(prod, shapes), default=0)


def most_rows(limits: BatchLimits, arrays: Mapping[str, Array], shapes: Shapes) -> int:
    """How many rows like those of `arrays` a batch may have where its padded ones have grown to `shapes`.

    The least that `rows`, `padded` and `bytes` allow; MOST_BYTES stands in for the latter two together. It may be 0:
    one part runs all the same.
    """
    most = limits.rows
    if limits.padded is not None and (size := longest(shapes)):
        most = min(most, limits.padded // size)
    if (limits.bytes is not None or limits.padded is None) and (size := _row_bytes(limits.pad, arrays, shapes)):
        most = min(most, (limits.bytes or MOST_BYTES) // size)
    return most


def _row_bytes(pad: Mapping[str, float], arrays: Mapping[str, Array], shapes: Shapes) -> int:
    size, padded = 0, iter(shapes)
    for name, array in arrays.items():
        size += array.itemsize * prod(next(padded) if name in pad else array.shape[1:])
    return size
