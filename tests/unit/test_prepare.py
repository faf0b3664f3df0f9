"""Inputs against a model's declaration, and a request's rows as parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.errors import InvalidRequest, ModelError
from inference_worker.backends.base import ModelRequest
from inference_worker.models.registry import Loaded
from inference_worker.models.spec import ModelSpec, TensorSpec
from inference_worker.prepare import BULK_S, Features, check_inputs, parts_of, preprocess
from tests.support.items import FunctionBackend, item, model, part, parts

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
    features: Features = {"tokens": [np.arange(4), np.arange(6)]}
    assert [(part.length, part.arrays["tokens"].shape) for part in parts_of(one, features)] == [
        (4, (1, 4)),
        (6, (1, 6)),
    ]


class Stage(FunctionBackend):
    """A backend whose preprocess stage returns `features`, whatever that is."""

    def __init__(self, features: Any) -> None:
        super().__init__(lambda batch: batch)
        self._features = features

    def preprocess(self, request: ModelRequest) -> Any:
        return self._features


def preprocessed(features: Any, **limits: Any) -> Features:
    """`features` as those of a request of 2 rows."""
    return preprocess(Loaded(model(**limits).spec, Stage(features)), ModelRequest({}, 2, {}))


@pytest.mark.parametrize(
    ("features", "told"),
    [
        ({"x": np.zeros((3, 2))}, "returned 3 rows of 'x' for 2"),
        ({"x": [1, 2, 3]}, "returned 3 rows of 'x' for 2"),
        ({"x": 7}, "must return arrays with rows first, or lists of rows; got 7 for 'x'"),
        ({"x": np.float32(1.5)}, "must return arrays with rows first, or lists of rows; got np.float32(1.5) for 'x'"),
        ({"x": np.array(3)}, "must return arrays with rows first, or lists of rows; got array(3) for 'x'"),
        ({"x": None}, "must return arrays with rows first, or lists of rows; got None for 'x'"),
        ({"x": "ab"}, "must return arrays with rows first, or lists of rows; got 'ab' for 'x'"),
        ({"x": {1, 2}}, "must return arrays with rows first, or lists of rows; got {1, 2} for 'x'"),
        ({"x": [[[1], [2, 3]], [1]]}, "returned a row of 'x' that is no array: "),
        ({}, "must return a map of arrays; got a dict of 0"),
        (None, "must return a map of arrays; got None"),
        ([1, 2], "must return a map of arrays; got a list of 2"),
    ],
)
def test_preprocess_must_return_arrays_with_the_rows_of_its_request(features: Any, told: str) -> None:
    with pytest.raises(ModelError) as caught:
        preprocessed(features)
    assert f"preprocess of model 'm:1' {told}" in str(caught.value)


def test_a_list_of_rows_of_one_size_is_an_array() -> None:
    found = preprocessed({"x": [[1, 2], [3, 4]], "text": ["a\0", "b"]})
    assert isinstance(found["x"], np.ndarray)
    assert isinstance(found["text"], np.ndarray)
    assert (found["x"].tolist(), found["text"].tolist()) == ([[1, 2], [3, 4]], ["a\0", "b"])


def test_rows_of_different_sizes_that_are_not_padded_do_not_share_a_batch() -> None:
    loaded = model(rows=8)
    one = item(loaded, np.zeros((2, 3)))
    cut = list(parts_of(one, preprocessed({"x": [np.arange(4), np.arange(6)]})))
    assert [part.arrays["x"].shape for part in cut] == [(1, 4), (1, 6)]
    assert cut[0].signature != cut[1].signature


def test_what_others_send_goes_before_a_tenants_backlog_until_that_has_waited_long() -> None:
    loaded = model(rows=8)
    bulk, fresh = part(loaded, taken_s=0.0, stream=4), part(loaded, taken_s=5.0, stream=1)
    later = part(loaded, taken_s=BULK_S + 1.0, stream=1)

    assert fresh.order < bulk.order < later.order
