"""What a model gives against what it declares, and what of it leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.errors import ModelError
from common.wire import MAX_BYTES
from inference_worker.models.spec import ModelSpec, TensorSpec
from inference_worker.outputs import check_outputs, to_tensors

TWO_ROWS = 2


def declaring(*forms: tuple[str, tuple[int, ...]]) -> ModelSpec:
    """A model with outputs `y`, `y1`, ... of these dtypes and shapes."""
    outputs = (TensorSpec(f"y{number or ''}", *form) for number, form in enumerate(forms))
    return ModelSpec("m", "1", "python", outputs=tuple(outputs))


@pytest.mark.parametrize(
    ("dtype", "shape", "outputs", "told"),
    [
        ("FP32", (3,), {"z": np.zeros((2, 3))}, "declares the output y: FP32[3] and gave 'z'"),
        ("FP32", (3,), {}, "declares the output y: FP32[3] and gave none"),
        ("FP32", (3,), [1, 2], "must give a map of arrays by output name; got a list of 2"),
        ("FP32", (3,), {"y": np.zeros((2, 4))}, "declares the output y: FP32[3], with the rows first, and gave FP64"),
        ("FP32", (3,), {"y": np.zeros(2)}, "with the rows first, and gave FP64[2]"),
        ("FP32", (3,), {"y": 7.0}, "with the rows first, and gave FP32[]"),
        ("FP32", (-1, 3), {"y": np.zeros((2, 3))}, "y: FP32[-1, 3], with the rows first, and gave FP64[2, 3]"),
        ("FP32", (3,), {"y": np.zeros((1, 3))}, "gave 1 rows of its output 'y' for a request of 2"),
        ("INT64", (), {"y": np.zeros(2)}, "declares the output y: INT64[] and gave FP64[2], which does not become"),
        ("FP32", (), {"y": np.zeros(2, complex)}, "y: FP32[] and gave complex128[2], which does not become that"),
        ("FP32", (), {"y": ["1", "2"]}, "declares the output y: FP32[] and gave BYTES[2], which does not become that"),
        ("BYTES", (), {"y": np.zeros(2)}, "declares the output y: BYTES[] and gave FP64[2], which does not become"),
        ("BOOL", (), {"y": [1, 0]}, "declares the output y: BOOL[] and gave INT64[2], which does not become that"),
        ("UINT8", (), {"y": [1, 256]}, "y: UINT8[] and gave INT64[2] with values beyond those of UINT8"),
        ("UINT64", (), {"y": [1, -1]}, "y: UINT64[] and gave INT64[2] with values beyond those of UINT64"),
        ("FP16", (), {"y": np.array([1, 1e9])}, "y: FP16[] and gave FP64[2] with values beyond those of FP16"),
        ("FP32", (-1,), {"y": [[1], [2, 3]]}, "model 'm:1' gave rows of its output 'y' that cannot become an array: "),
    ],
)
def test_what_is_not_as_declared_is_named_with_both(
    dtype: str, shape: tuple[int, ...], outputs: Any, told: str
) -> None:
    with pytest.raises(ModelError) as caught:
        check_outputs(declaring((dtype, shape)), outputs, TWO_ROWS)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("dtype", "given", "values"),
    [
        ("FP32", np.array([0.5, 1.5]), [0.5, 1.5]),
        ("FP16", np.array([0.5, np.inf]), [0.5, np.inf]),
        ("FP32", np.array([1, 2], ">f4"), [1.0, 2.0]),
        ("FP64", np.array([1, 2]), [1.0, 2.0]),
        ("UINT8", np.array([0, 255]), [0, 255]),
        ("INT32", np.array([True, False]), [1, 0]),
        ("BYTES", np.array(["a", "b"]), ["a", "b"]),
        ("BYTES", ["a\0", b"b\0"], ["a\0", b"b\0"]),
    ],
)
def test_an_output_becomes_what_is_declared_where_only_precision_is_lost(
    dtype: str, given: Any, values: list[Any]
) -> None:
    tensor = to_tensors(*_checked(declaring((dtype, ())), {"y": given}), False)["y"]
    assert tensor.dtype == dtype
    assert tensor.numpy().tolist() == values


def test_a_bf16_output_travels_as_bf16() -> None:
    spec = declaring(("BF16", (2,)))
    tensor = to_tensors(*_checked(spec, {"y": np.array([[1.0, 2.0], [0.5, 0.25]])}), False)["y"]
    assert (tensor.dtype, tensor.shape, tensor.numpy().tolist()) == ("BF16", (2, 2), [[1, 2], [0.5, 0.25]])


def test_what_is_as_declared_is_not_copied() -> None:
    array = np.zeros((2, 3), np.float32)
    assert check_outputs(declaring(("FP32", (-1,))), {"y": array}, TWO_ROWS)["y"] is array


def test_what_is_not_declared_stays_in_the_worker() -> None:
    outputs = {"debug name!": object(), "y": np.zeros(2, np.float32)}
    assert list(check_outputs(declaring(("FP32", ())), outputs, TWO_ROWS)) == ["y"]


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ({"no spaces": [1, 2]}, "gave an output under the name 'no spaces', which cannot be sent: a name has 1 to 128"),
        ({7: [1, 2]}, "gave an output under the name 7, which cannot be sent: a name has 1 to 128 letters"),
        ({f"y{number}": [1, 2] for number in range(65)}, "must give at most 64 outputs; it gave 65"),
        ({"y": [1, 2, 3]}, "gave 3 rows of its output 'y' for a request of 2"),
        ({"y": 1}, "gave a scalar of its output 'y' for a request of 2"),
    ],
)
def test_without_a_declaration_names_numbers_and_rows_are_checked(outputs: Any, told: str) -> None:
    with pytest.raises(ModelError, match="model 'm:1' ") as caught:
        check_outputs(declaring(), outputs, TWO_ROWS)
    assert told in str(caught.value)


def test_a_single_item_leaves_without_its_rows() -> None:
    tensors = to_tensors(
        declaring(("INT64", ()), ("BYTES", (1,))), {"y": np.array([3]), "y1": np.array([["a"]], object)}, True
    )
    assert {name: (one.shape, one.numpy().tolist()) for name, one in tensors.items()} == {
        "y": ((), 3),
        "y1": ((1,), ["a"]),
    }


@pytest.mark.parametrize("value", [np.zeros(2, complex), np.array([None, 1], dtype=object)])
def test_what_has_no_place_on_the_wire_is_the_models_error(value: Any) -> None:
    with pytest.raises(ModelError, match="model 'm:1' gave in its output 'y' what cannot be sent: "):
        to_tensors(declaring(), {"y": value}, False)


def test_more_bytes_than_a_reply_holds_are_the_models_error() -> None:
    row = np.broadcast_to(np.uint8(0), (1, MAX_BYTES // 2 + 1))
    with pytest.raises(ModelError, match=f"gave outputs of {MAX_BYTES + 2} bytes for one request, which can be"):
        to_tensors(declaring(), {"y": row, "z": row}, False)


def _checked(spec: ModelSpec, outputs: Any) -> tuple[ModelSpec, Any]:
    return spec, check_outputs(spec, outputs, TWO_ROWS)
