"""What rows of different sizes become together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.tensor import Array
from inference_worker.batching.batcher import Batcher
from inference_worker.batching.collate import collate
from inference_worker.batching.padding import MOST_BYTES, most_rows, row_shapes, widest
from inference_worker.item import batch_of
from inference_worker.models.registry import Loaded
from inference_worker.models.spec import BatchLimits
from tests.support.items import model, parts

LATER = 1000.0
shapes = st.tuples(st.integers(0, 20), st.integers(0, 20))


def batches(loaded: Loaded, *rows: Array) -> list[Array]:
    """What the model gets in each batch, where one request came for each of `rows`."""
    batcher = Batcher()
    for row in rows:
        batcher.add(parts(loaded, row)[0])
    collated = []
    while (batch := batcher.next(LATER)) is not None:
        collated.append(collate(batch)["x"])
    return collated


def test_a_long_row_and_a_wide_one_are_counted_as_the_square_that_they_become() -> None:
    # Given a model that takes 200 elements, and two rows of 100 that are 10,000 each side by side
    loaded = model(shape=(-1, -1), padded=200, pad={"x": 0.0})
    # When both wait
    found = batches(loaded, np.ones((1, 100)), np.ones((100, 1)))
    # Then each runs by itself
    assert sorted(array.shape for array in found) == [(1, 1, 100), (1, 100, 1)]


def test_a_model_without_that_limit_has_one_in_bytes() -> None:
    side = int((MOST_BYTES // 8) ** 0.5) + 1
    loaded = model(shape=(-1, -1), pad={"x": 0.0})
    assert len(batches(loaded, np.ones((1, side)), np.ones((side, 1)))) == 2
    assert len(batches(loaded, *[np.ones((side // 2, side // 2))] * 2)) == 1


def test_rows_that_are_not_padded_count_in_bytes_too() -> None:
    arrays = {"x": np.broadcast_to(np.float32(0), (1, MOST_BYTES // 16)), "ids": np.zeros((1, 3))}
    assert most_rows(BatchLimits(rows=64), arrays, ()) == 3
    assert most_rows(BatchLimits(rows=2), arrays, ()) == 2


def test_rows_of_no_elements_are_bounded_by_their_number_alone() -> None:
    arrays = {"x": np.zeros((1, 0))}
    assert most_rows(BatchLimits(rows=64, padded=10, pad={"x": 0}), arrays, row_shapes(arrays, {"x": 0})) == 64


@pytest.mark.parametrize("order", [1, -1])
@given(given=st.lists(shapes, min_size=1, max_size=6))
def test_what_is_predicted_of_a_batch_is_what_collating_makes(given: list[tuple[int, int]], order: int) -> None:
    loaded = model(shape=(-1, -1), pad={"x": 0.0})
    found = [parts(loaded, np.ones(shape))[0] for shape in given[::order]]
    predicted = found[0].shapes
    for one in found:
        predicted = widest(predicted, one.shapes)
    assert predicted == (collate(batch_of(found))["x"].shape[1:],)
