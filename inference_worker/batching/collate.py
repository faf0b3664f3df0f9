"""A batch's parts to the arrays that its model gets, padded as the model declares. Pure."""

from __future__ import annotations

import numpy as np

from common.tensor import Array
from inference_worker.batching.padding import filled
from inference_worker.item import Batch


def collate(batch: Batch) -> dict[str, Array]:
    """Each input of all parts as one array, rows first; sizes that differ are filled up with the pad value."""
    first = batch.parts[0].arrays
    if len(batch.parts) == 1:
        return dict(first)
    pad = batch.loaded.spec.batch.pad
    columns = {name: [part.arrays[name] for part in batch.parts] for name in first}
    return {
        name: pad_rows(arrays, pad[name]) if name in pad else np.concatenate(arrays) for name, arrays in columns.items()
    }


def pad_rows(arrays: list[Array], value: float) -> Array:
    """Arrays with rows first as one; rows that are shorter than the longest are filled up with `value`."""
    rows = sum(len(array) for array in arrays)
    joined = np.full((rows, *filled(array.shape[1:] for array in arrays)), value, dtype=arrays[0].dtype)
    row = 0
    for array in arrays:
        corner = tuple(slice(0, size) for size in array.shape[1:])
        joined[(slice(row, row + len(array)), *corner)] = array
        row += len(array)
    return joined
