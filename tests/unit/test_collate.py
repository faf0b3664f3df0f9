"""Parts to the arrays that a model gets."""

from __future__ import annotations

import numpy as np

from inference_worker.batching.collate import collate
from inference_worker.item import batch_of
from tests.support.items import model, part, parts


def test_equal_shapes_are_joined_in_order() -> None:
    loaded = model(shape=(2,))
    batch = batch_of((*parts(loaded, [1, 2]), *parts(loaded, [[3, 4], [5, 6]])))
    assert collate(batch)["x"].tolist() == [[1, 2], [3, 4], [5, 6]]


def test_different_lengths_are_filled_up_with_the_pad_value() -> None:
    loaded = model(pad={"x": -1.0})
    batch = batch_of((*parts(loaded, [1, 2, 3]), *parts(loaded, [4])))
    assert collate(batch)["x"].tolist() == [[1, 2, 3], [4, -1, -1]]


def test_every_padded_dimension_is_filled_up() -> None:
    loaded = model(shape=(-1, -1), pad={"x": 0.0})
    batch = batch_of((*parts(loaded, np.ones((1, 3))), *parts(loaded, np.ones((2, 1)))))
    assert collate(batch)["x"].sum() == 5
    assert collate(batch)["x"].shape == (2, 2, 3)


def test_the_dtype_stays() -> None:
    loaded = model(pad={"x": 0.0})
    assert collate(batch_of((part(loaded, 2), part(loaded, 3))))["x"].dtype == np.float32


def test_a_single_part_is_not_copied() -> None:
    one = part(model(), 4)
    assert np.shares_memory(collate(batch_of((one,)))["x"], one.arrays["x"])
