"""Tensors in JSON: nested lists to a tensor and back, checked. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from common.errors import InvalidRequest, ModelError
from common.names import shorten
from common.tensor import DTYPES, MAX_RANK, Array, Tensor, check_shape, from_numpy, numpy_dtype, to_bf16

#: The struct module's letters: it makes bytes of a list of numbers three times as fast as numpy, and as exactly.
_CODES = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip


def parse(what: str, data: bytes | memoryview) -> Any:
    """Raises InvalidRequest."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{what} is not valid JSON: {error}") from None


def dump(value: object) -> bytes:
    """Numpy arrays become lists."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def tensor_of(field: str, dtype: object, shape: object, data: object) -> Tensor:
    """`data` is a list, flat or nested, of as many values as `shape` has. Raises InvalidRequest naming `field`."""
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InvalidRequest(f"{field}.datatype must be one of {', '.join(DTYPES)}; got {shorten(dtype)}")
    count = check_shape(field, shape)
    if not isinstance(data, list):
        raise InvalidRequest(f"{field}.data must be a list; got {shorten(data)}")
    dimensions: tuple[int, ...] = tuple(shape)  # type: ignore[arg-type]  # check_shape has seen that it is a list
    packed = _packed(dtype, data, count)
    if packed is not None:
        return Tensor(dtype, dimensions, packed)
    if dtype == "BYTES":
        strings = list(_flat(field, data))
        _check_count(field, len(strings), count)
        return Tensor(dtype, dimensions, strings)
    array = _numbers(field, dtype, data)
    _check_count(field, array.size, count)
    array = array.reshape(dimensions)
    return to_bf16(array) if dtype == "BF16" else from_numpy(array)


def values_of(name: str, tensor: Tensor) -> Any:
    """A flat list or array that `dump` takes. Raises ModelError for what JSON cannot hold: NaN, infinity, raw bytes."""
    if isinstance(tensor.data, list):
        return [_text(name, one) for one in tensor.data]
    array = tensor.numpy().reshape(-1)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelError(f"output '{name}' holds NaN or infinity, which JSON cannot; ask for it as binary data (v2)")
    return array


def nested_of(name: str, tensor: Tensor) -> Any:
    """Lists in the tensor's shape; a scalar for none. Raises ModelError."""
    values = values_of(name, tensor)
    if isinstance(values, np.ndarray):
        return values.reshape(tensor.shape) if tensor.shape else values[0].item()
    return _nest(values, tensor.shape)


def _packed(dtype: str, data: list[Any], count: int) -> bytes | None:
    """A flat list of as many numbers, in one step; None where it is anything else: the long way says what is wrong."""
    code = _CODES.get(dtype)
    if code is None or len(data) != count or not data or type(data[0]) is bool:
        return None
    try:
        return struct.pack(f"<{count}{code}", *data)
    except (struct.error, OverflowError):
        return None


def _numbers(field: str, dtype: str, data: list[Any]) -> Array:
    try:
        # As they are: with a dtype numpy would make numbers of strings, and NaN of null.
        array = np.array(data)
    except ValueError:
        raise InvalidRequest(f"{field}.data must be a regular list: all of its rows as long as the first") from None
    wanted = numpy_dtype(dtype)
    if not array.size:
        return array.astype(wanted)
    if wanted.kind == "b":
        if array.dtype.kind != "b" and not (array.dtype.kind in "iu" and ((array == 0) | (array == 1)).all()):
            raise InvalidRequest(f"{field}.data must hold true and false, or 1 and 0, for BOOL")
        return array.astype(wanted)
    if array.dtype.kind not in ("iu" if wanted.kind in "iu" else "iuf"):
        raise InvalidRequest(f"{field}.data must hold {'integers' if wanted.kind in 'iu' else 'numbers'} for {dtype}")
    return _fitted(field, dtype, array, wanted)


def _fitted(field: str, dtype: str, array: Array, wanted: np.dtype[Any]) -> Array:
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise InvalidRequest(f"{field}.data must hold integers from {limits.min} to {limits.max} for {dtype}")
        return array.astype(wanted)
    with np.errstate(over="ignore"):
        fitted = array.astype(np.float16 if dtype == "FP16" else wanted)
    if not np.isfinite(fitted).all():
        raise InvalidRequest(f"{field}.data holds a number that is too large for {dtype}")
    return fitted


def _flat(field: str, data: list[Any], depth: int = 1) -> Iterator[str]:
    for one in data:
        if isinstance(one, str):
            yield one
        elif isinstance(one, list) and depth < MAX_RANK:
            yield from _flat(field, one, depth + 1)
        else:
            raise InvalidRequest(f"{field}.data must hold strings for BYTES; got {shorten(one)}")


def _check_count(field: str, got: int, count: int) -> None:
    if got != count:
        raise InvalidRequest(f"{field}.data must hold {count} values for its shape; got {got}")


def _text(name: str, value: str | bytes) -> str:
    try:
        return value if isinstance(value, str) else value.decode()
    except UnicodeDecodeError:
        raise ModelError(f"output '{name}' holds bytes that are no text; ask for it as binary data (v2)") from None


def _nest(values: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return values[0]
    if len(shape) == 1:
        return values
    step = len(values) // shape[0] if shape[0] else 0
    return [_nest(values[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])]
