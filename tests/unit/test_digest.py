"""The cache key: everything that a result depends on, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from common.digest import is_digest, request_digest
from common.names import check_id
from common.tensor import Tensor, from_numpy, to_tensor

GIVEN = {
    "tenant": "acme",
    "model": "minilm",
    "version": "2",
    "weights": "ab12",
    "parameters": {"top_k": 5, "options": {"lower": True, "rest": [1, 2]}},
    "inputs": {"text": to_tensor(["a", "b"]), "scale": from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3))},
    "outputs": ("vector",),
}


def digest(**changed: object) -> str:
    return request_digest(**{**GIVEN, **changed})


def inputs(**changed: Tensor) -> dict[str, Tensor]:
    return {**GIVEN["inputs"], **changed}


def test_equal_requests_have_equal_digests():
    assert digest() == digest()


@pytest.mark.parametrize(
    "changed",
    [
        {"tenant": "other"},
        {"tenant": None},
        {"model": "minilm2"},
        {"version": "3"},
        {"weights": "ab13"},
        {"parameters": {}},
        {"parameters": {"top_k": 6, "options": {"lower": True, "rest": [1, 2]}}},
        {"parameters": {"top_k": 5, "options": {"lower": True, "rest": [2, 1]}}},
        {"parameters": {"top_k": 5, "options": {"lower": 1, "rest": [1, 2]}}},
        {"outputs": None},
        {"outputs": ("other",)},
        {"outputs": ("vector", "other")},
        {"inputs": inputs(text=to_tensor(["a", "c"]))},
        {"inputs": inputs(text=to_tensor(["ab", ""]))},
        {"inputs": inputs(text=to_tensor([b"a", b"b"]))},
        {"inputs": inputs(text=Tensor("BYTES", (2, 1), ["a", "b"]))},
        {"inputs": inputs(scale=from_numpy(np.arange(6, dtype=np.float32).reshape(3, 2)))},
        {"inputs": inputs(scale=from_numpy(np.arange(6, dtype=np.float32).view(np.int32).reshape(2, 3)))},
        {"inputs": inputs(scale=from_numpy(np.arange(1, 7, dtype=np.float32).reshape(2, 3)))},
        {"inputs": inputs(more=to_tensor(1))},
        {"inputs": {"text": GIVEN["inputs"]["text"], "factor": GIVEN["inputs"]["scale"]}},
    ],
)
def test_whatever_a_result_depends_on_changes_the_digest(changed):
    assert digest(**changed) != digest()


def test_swapping_the_bytes_of_two_inputs_changes_the_digest():
    one, two = from_numpy(np.zeros(2, np.float32)), from_numpy(np.ones(2, np.float32))

    assert digest(inputs={"a": one, "b": two}) != digest(inputs={"a": two, "b": one})


def test_the_order_of_inputs_and_parameters_does_not_matter():
    backwards = dict(reversed(GIVEN["inputs"].items()))
    parameters = {"options": {"rest": [1, 2], "lower": True}, "top_k": 5}

    assert digest(inputs=backwards, parameters=parameters) == digest()


def test_lists_and_tuples_are_alike_as_they_are_on_the_wire():
    assert digest(parameters={"stop": ["a"]}) == digest(parameters={"stop": ("a",)})


def test_a_list_of_pairs_is_not_a_map():
    assert digest(parameters={"a": {"b": 1}}) != digest(parameters={"a": [["b", 1]]})


def test_a_view_of_the_bytes_is_as_good_as_a_copy():
    array = np.arange(20_000, dtype=np.float32)
    view, copy = from_numpy(array), Tensor("FP32", array.shape, array.tobytes())

    assert isinstance(view.data, memoryview)
    assert digest(inputs={"x": view}) == digest(inputs={"x": copy})


def test_the_digest_is_an_id_that_shows_what_it_is():
    assert check_id(digest()) == digest()
    assert is_digest(digest())
    assert not is_digest("6f1c2d34")


def test_the_digest_stays_the_same_from_release_to_release():
    """A change here empties every cache and must be meant."""
    assert digest() == "b2:5e767bf95738652c1d010761285c6246578d2c47"
