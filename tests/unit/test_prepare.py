"""Inputs against a model's declaration, and a request's rows as parts."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InvalidRequest, ModelError
from inference_worker.backends.base import ModelRequest
from inference_worker.prepare import check_inputs, parts_of, preprocess
from inference_worker.spec import ModelSpec, TensorSpec
from tests.support.items import item, model, parts

SPEC = ModelSpec("m", "1", "python", inputs=(TensorSpec("x", "FP32", (2,)), TensorSpec("t", "BYTES", ())))
X = np.zeros(2, np.float32)


def strings(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


def test_one_item_gets_a_rows_dimension() -> None:
    checked = check_inputs(SPEC, {"x": X, "t": np.array("a", dtype=object)})
    assert checked.single
    assert {name: array.shape for name, array in checked.arrays.items()} == {"x": (1, 2), "t": (1,)}


def test_one_dimension_more_is_rows() -> None:
    checked = check_inputs(SPEC, {"x": np.zeros((3, 2), np.float32), "t": strings("a", "b", "c")})
    assert (checked.rows, checked.single) == (3, False)


def test_a_model_without_declared_inputs_takes_anything_as_one_item() -> None:
    checked = check_inputs(ModelSpec("m", "1", "python"), {"any": np.zeros((3, 2))})
    assert (checked.rows, checked.single, checked.arrays["any"].shape) == (1, True, (1, 3, 2))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": X}, "takes the inputs x, t; got x"),
        ({"x": X, "t": strings("a"), "y": X}, "takes the inputs x, t; got t, x, y"),
        ({"x": np.zeros(2), "t": strings("a")}, "input 'x' of model 'm' must be FP32; got FP64"),
        ({"x": np.zeros(3, np.float32), "t": strings("a")}, r"input 'x' .* must have shape \[2\] .*; got \[3\]"),
        ({"x": np.zeros((1, 1, 2), np.float32), "t": strings("a")}, r"must have shape .*; got \[1, 1, 2\]"),
        ({"x": np.zeros((2, 2), np.float32), "t": strings("a")}, "same number of rows; got 1, 2"),
        ({"x": X, "t": strings("a")}, "same number of rows; got 1, one item"),
        ({"x": np.zeros((0, 2), np.float32), "t": strings()}, "must have 1 to 65536 rows; got 0"),
    ],
)
def test_what_does_not_fit_is_named(inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        check_inputs(SPEC, inputs)


def test_rows_whose_sizes_may_differ_become_parts_of_one_row() -> None:
    assert [one.rows for one in parts(model(pad={"x": 0.0}), np.zeros((3, 5)))] == [1, 1, 1]


def test_rows_of_a_fixed_size_stay_together_up_to_the_limit() -> None:
    assert [one.rows for one in parts(model(shape=(2,), rows=2), np.zeros((5, 2)))] == [2, 2, 1]


def test_preprocess_may_give_rows_of_different_sizes() -> None:
    loaded = model(pad={"tokens": 0})
    one = item(loaded, np.zeros((2, 3)))
    features = {"tokens": [np.arange(4), np.arange(6)]}
    assert [(part.length, part.arrays["tokens"].shape) for part in parts_of(one, features)] == [
        (4, (1, 4)),
        (6, (1, 6)),
    ]


def test_preprocess_must_keep_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = model()
    monkeypatch.setattr(loaded.backend, "preprocess", lambda request: {"x": np.zeros((3, 2))})
    with pytest.raises(ModelError, match="returned 3 rows of 'x' for 2"):
        preprocess(loaded, ModelRequest({}, 2, {}))
