"""Tensors: every dtype, every layout, nothing allocated before it is checked."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InvalidRequest
from common.names import shorten
from common.tensor import (
    DTYPES,
    MAX_STRINGS,
    Tensor,
    check_shape,
    dtype_name,
    from_numpy,
    from_wire,
    item_size,
    numpy_dtype,
    to_bf16,
    to_tensor,
)

NUMERIC = [dtype for dtype in DTYPES if dtype not in ("BF16", "BYTES")]


def values(dtype: str, shape: tuple[int, ...] = (2, 3)) -> np.ndarray:
    """Values that differ from each other as far as the dtype allows."""
    return np.arange(int(np.prod(shape))).reshape(shape).astype(numpy_dtype(dtype))


def on_the_wire(tensor: Tensor) -> dict[str, object]:
    """As it arrives: msgpack gives lists and bytes."""
    data = tensor.data if isinstance(tensor.data, list) else bytes(tensor.data)
    return {"dtype": tensor.dtype, "shape": list(tensor.shape), "data": data}


# -- from arrays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NUMERIC)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (3, 0, 2), (60_000,), (2, 1, 1, 4)])
def test_an_array_of_every_dtype_and_shape_comes_back_equal(dtype, shape):
    array = values(dtype, shape)

    tensor = from_wire("x", on_the_wire(from_numpy(array)))

    assert tensor.dtype == dtype
    assert tensor.numpy().dtype == array.dtype
    assert tensor.numpy().shape == shape
    assert np.array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("dtype", NUMERIC)
@pytest.mark.parametrize(
    "layout",
    [
        lambda array: np.asfortranarray(array),
        lambda array: array.T,
        lambda array: array[::2],
        lambda array: array[:, ::-1],
        lambda array: array[1:, 1:],
        lambda array: np.broadcast_to(array[:1], array.shape),
        lambda array: array.astype(array.dtype.newbyteorder(">")),
    ],
    ids=["fortran", "transposed", "strided", "reversed", "sliced", "broadcast", "big-endian"],
)
@pytest.mark.parametrize("size", [4, 200], ids=["small", "large"])
def test_an_array_of_any_memory_layout_comes_back_equal(dtype, layout, size):
    array = layout(values(dtype, (size, size)))

    assert np.array_equal(from_wire("x", on_the_wire(from_numpy(array))).numpy(), array)


def test_numbers_are_little_endian_and_row_major_on_the_wire():
    tensor = from_numpy(np.array([[1, 2], [3, 4]], dtype=">u2"))

    assert tensor.data == bytes([1, 0, 2, 0, 3, 0, 4, 0])


def test_a_large_array_is_sent_without_a_copy_and_a_small_one_is_copied():
    large, small = values("FP32", (100, 100)), values("FP32", (10, 10))

    assert np.shares_memory(np.frombuffer(from_numpy(large).data, np.uint8), large)
    assert isinstance(from_numpy(small).data, bytes)


@pytest.mark.parametrize("dtype", NUMERIC)
def test_a_received_array_is_a_read_only_view_of_the_received_bytes(dtype):
    received = values(dtype).tobytes()

    array = from_wire("x", {"dtype": dtype, "shape": [2, 3], "data": received}).numpy()

    assert np.shares_memory(array, np.frombuffer(received, np.uint8))
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 0


@pytest.mark.parametrize("array", [np.zeros(2, "c8"), np.zeros(2, "M8[s]"), np.zeros(2, "f4,i4"), np.zeros(2, "V3")])
def test_a_dtype_without_a_name_in_the_protocol_is_refused_with_those_that_have_one(array):
    with pytest.raises(InvalidRequest) as caught:
        from_numpy(array)

    assert str(array.dtype) in caught.value.message
    assert ", ".join(DTYPES) in caught.value.message


@pytest.mark.parametrize("dtype", NUMERIC)
@pytest.mark.parametrize("shape", [(), (3,), (0, 2)])
def test_the_name_of_an_arrays_dtype_is_the_protocols(dtype, shape):
    assert dtype_name(values(dtype, shape)) == dtype
    assert dtype_name(values(dtype, shape).astype(numpy_dtype(dtype).newbyteorder(">"))) == dtype


def test_the_name_of_an_object_or_string_array_is_bytes():
    assert dtype_name(np.array(["a"], dtype=object)) == "BYTES"
    assert dtype_name(np.array(["a"])) == "BYTES"


# -- BF16 -------------------------------------------------------------------------------------------------------------


def test_bf16_comes_as_float32_and_keeps_its_eight_bits():
    exact = np.array([0.0, -0.0, 1.0, -2.5, 3.3895314e38, 1e-38, np.inf, -np.inf], dtype=np.float32)
    exact = (exact.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)

    tensor = from_wire("x", on_the_wire(to_bf16(exact)))

    assert tensor.dtype == "BF16"
    assert len(tensor.data) == 2 * exact.size
    assert tensor.numpy().dtype == np.float32
    assert tensor.numpy().tobytes() == exact.tobytes()


def test_bf16_rounds_to_the_nearest_even_and_keeps_nan():
    floats = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F800001, 0x7F7FFFFF], dtype=np.uint32)

    words = np.frombuffer(to_bf16(floats.view(np.float32)).data, np.uint16)

    assert [hex(word) for word in words] == ["0x3f80", "0x3f82", "0x3f81", "0x3f80", "0x7fc0", "0x7f80"]


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 2)])
def test_bf16_has_every_shape(shape):
    array = np.ones(shape, np.float32)

    assert np.array_equal(from_wire("x", on_the_wire(to_bf16(array))).numpy(), array)


# -- BYTES ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "strings"),
    [
        ((), ["one"]),
        ((0,), []),
        ((2, 0), []),
        ((3,), ["", "grüße", "\0"]),
        ((2, 2), [b"", b"\xff\xfe", b"a", b"\0"]),
        ((2,), ["text", b"bytes"]),
    ],
)
def test_strings_and_bytes_come_back_as_what_they_were(shape, strings):
    array = from_wire("x", {"dtype": "BYTES", "shape": list(shape), "data": strings}).numpy()

    assert array.shape == shape
    assert array.dtype == object
    assert array.reshape(-1).tolist() == strings
    assert from_numpy(array) == Tensor("BYTES", shape, strings)


def test_strings_that_look_like_lists_stay_strings():
    assert Tensor("BYTES", (2,), ["ab", "cd"]).numpy().tolist() == ["ab", "cd"]


# -- from what callers have -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "shape"),
    [
        (1, "INT64", ()),
        (1.5, "FP32", ()),
        (True, "BOOL", ()),
        ("text", "BYTES", ()),
        (b"text", "BYTES", ()),
        ([1, 2], "INT64", (2,)),
        ([1.0, 2.0], "FP32", (2,)),
        ([1, 2.5], "FP32", (2,)),
        ([True, False], "BOOL", (2,)),
        (["a", "b"], "BYTES", (2,)),
        (("a", b"b"), "BYTES", (2,)),
        ([["a", "b"], ["c", "d"]], "BYTES", (2, 2)),
        ([[1, 2], [3, 4]], "INT64", (2, 2)),
        ([], "FP32", (0,)),
        (np.float64(1.5), "FP64", ()),
        (np.array([1.5]), "FP64", (1,)),
        (np.array(["a", "b"]), "BYTES", (2,)),
        (np.array([b"a", b"b"]), "BYTES", (2,)),
        (2**63, "UINT64", ()),
    ],
)
def test_what_a_caller_naturally_has_becomes_a_tensor(value, dtype, shape):
    tensor = to_tensor(value)

    assert (tensor.dtype, tensor.shape) == (dtype, shape)
    expected = np.array(value, dtype=object) if dtype == "BYTES" else np.asarray(value)
    assert np.array_equal(tensor.numpy().reshape(-1), expected.reshape(-1))


def test_a_tensor_stays_itself():
    tensor = to_tensor([1])

    assert to_tensor(tensor) is tensor


def test_nested_strings_keep_their_trailing_zeros():
    assert to_tensor([["a\0", "b"]]).data == ["a\0", "b"]
    assert to_tensor([[b"a\0", b"b"]]).data == [b"a\0", b"b"]


@pytest.mark.parametrize("value", [[[1, 2], [3]], [["a"], ["b", "c"]], [[1], 2]])
def test_a_ragged_list_is_refused(value):
    with pytest.raises(InvalidRequest, match=r"^a list must be regular"):
        to_tensor(value)


@pytest.mark.parametrize("value", [None, object(), {"a": 1}, 10**30, ["a", 1], [["a", 1]], [None], 1j])
def test_what_has_no_dtype_is_refused(value):
    with pytest.raises(InvalidRequest):
        to_tensor(value)


# -- from the wire ----------------------------------------------------------------------------------------------------


def broken(**changed: object) -> dict[str, object]:
    return {"dtype": "FP32", "shape": [2], "data": bytes(8), **changed}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "inputs.x must be a map of dtype, shape and data; got 5"),
        ([1, 2], "inputs.x must be a map of dtype, shape and data; got a list of 2"),
        ({"dtype": "FP32", "shape": [2]}, "inputs.x.data is missing"),
        ({"shape": [2], "data": b""}, "inputs.x.dtype is missing"),
        ({"dtype": "FP32", "data": b""}, "inputs.x.shape is missing"),
        (broken(order="F"), "inputs.x has an unknown field 'order'; it holds dtype, shape and data only"),
        (broken(dtype="float32"), f"inputs.x.dtype must be one of {', '.join(DTYPES)}; got 'float32'"),
        (broken(dtype=7), f"inputs.x.dtype must be one of {', '.join(DTYPES)}; got 7"),
        (broken(dtype=["FP32"]), f"inputs.x.dtype must be one of {', '.join(DTYPES)}; got a list of 1"),
        (broken(shape=2), "inputs.x.shape must be a list of integers; got 2"),
        (broken(shape=None), "inputs.x.shape must be a list of integers; got None"),
        (broken(shape=[1] * 17), "inputs.x.shape must have at most 16 dimensions; got 17"),
        (broken(shape=[-1]), "inputs.x.shape must hold integers from 0 to 2147483647; got -1"),
        (broken(shape=[2**31]), "inputs.x.shape must hold integers from 0 to 2147483647; got 2147483648"),
        (broken(shape=[2.0]), "inputs.x.shape must hold integers from 0 to 2147483647; got 2.0"),
        (broken(shape=[True, 2]), "inputs.x.shape must hold integers from 0 to 2147483647; got True"),
        (broken(shape=["2"]), "inputs.x.shape must hold integers from 0 to 2147483647; got '2'"),
        (broken(data=bytes(7)), "inputs.x.data must hold 8 bytes for FP32 [2]; got 7"),
        (broken(shape=[2, 3]), "inputs.x.data must hold 24 bytes for FP32 [2, 3]; got 8"),
        (broken(dtype="BF16"), "inputs.x.data must hold 4 bytes for BF16 [2]; got 8"),
        (broken(shape=[]), "inputs.x.data must hold 4 bytes for FP32 []; got 8"),
        (broken(data="12345678"), "inputs.x.data must be bytes (msgpack bin) for FP32; got '12345678'"),
        (broken(data=[1.0, 2.0]), "inputs.x.data must be bytes (msgpack bin) for FP32; got a list of 2"),
        (broken(dtype="BYTES", data=b"ab"), "inputs.x.data must be a list of strings for BYTES; got b'ab'"),
        (broken(dtype="BYTES", data=["a"]), "inputs.x.data must hold 2 strings for its shape; got 1"),
        (broken(dtype="BYTES", data=["a", 1]), "inputs.x.data must hold strings or bytes only; got 1"),
        (broken(dtype="BYTES", data=["a", None]), "inputs.x.data must hold strings or bytes only; got None"),
    ],
)
def test_a_malformed_tensor_is_refused_with_field_limit_and_value(value, message):
    with pytest.raises(InvalidRequest) as caught:
        from_wire("inputs.x", value)

    assert caught.value.message == message


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [[0, 2**31 - 1, 2], [2**31 - 1, 2**31 - 1, 2**31 - 1, 0]])
def test_an_empty_tensor_of_absurd_size_is_refused_before_numpy_sees_it(dtype, shape):
    empty = [] if dtype == "BYTES" else b""

    with pytest.raises(InvalidRequest) as caught:
        from_wire("x", {"dtype": dtype, "shape": shape, "data": empty})

    assert caught.value.message == (
        f"x.shape must hold dimensions that multiply to at most 2147483647, zeros aside; got {shape}"
    )


@pytest.mark.parametrize("shape", [[2**31 - 1] * 16, [2**31 - 1, 2**31 - 1]])
def test_an_absurd_shape_is_refused_because_its_bytes_are_not_there(shape):
    with pytest.raises(InvalidRequest, match=r"^x\.data must hold \d+ bytes for FP64"):
        from_wire("x", {"dtype": "FP64", "shape": shape, "data": bytes(8)})


def test_an_empty_tensor_of_the_largest_allowed_size_is_an_array():
    tensor = from_wire("x", {"dtype": "FP64", "shape": [0, 2**31 - 1], "data": b""})

    assert tensor.numpy().shape == (0, 2**31 - 1)


def test_too_many_strings_are_refused_with_the_limit():
    strings = [""] * (MAX_STRINGS + 1)

    with pytest.raises(InvalidRequest, match=f"^x.data must hold at most {MAX_STRINGS} strings; got {MAX_STRINGS + 1}"):
        from_wire("x", {"dtype": "BYTES", "shape": [len(strings)], "data": strings})


def test_the_count_of_a_shape_is_the_product_of_its_dimensions():
    assert check_shape("x", []) == 1
    assert check_shape("x", (2, 0, 3)) == 0
    assert check_shape("x", [2, 3]) == 6


@pytest.mark.parametrize(("dtype", "size"), [("BOOL", 1), ("INT64", 8), ("FP16", 2), ("BF16", 2), ("FP64", 8)])
def test_every_numeric_dtype_has_a_size(dtype, size):
    assert item_size(dtype) == size


def test_a_tensor_shows_its_dtype_and_shape_and_never_its_data():
    assert repr(Tensor("FP32", (2, 3), bytes(24))) == "Tensor(FP32, shape=[2, 3])"
    assert shorten(Tensor("BYTES", (1,), ["secret"])) == "Tensor(BYTES, shape=[1])"


def test_bytes_among_strings_stay_what_they_are() -> None:
    tensor = to_tensor([["a\0", b"\x80"], ["", b""]])
    assert (tensor.dtype, tensor.shape, tensor.data) == ("BYTES", (2, 2), ["a\0", b"\x80", "", b""])
