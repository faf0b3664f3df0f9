"""A tensor on the wire: dtype, shape and bytes, checked before anything is allocated for it.

Names follow the Open Inference Protocol (v2); numbers are little-endian and row-major; BYTES is a
flat list of strings or byte strings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import InvalidRequest
from common.names import shorten
from common.records import record

Array = npt.NDArray[Any]

MAX_RANK = 16
MAX_DIMENSION = 2**31 - 1
#: Strings in one BYTES tensor; each costs a Python object of about 60 bytes beside its text.
MAX_STRINGS = 1_048_576

_NUMERIC: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _NUMERIC.items()}
# numpy has no bfloat16: its bytes travel as 16-bit words and become the upper half of a float32.
_BF16_WORD = np.dtype("<u2")

_SIZES = {name: dtype.itemsize for name, dtype in _NUMERIC.items()} | {"BF16": _BF16_WORD.itemsize}

DTYPES = (*_NUMERIC, "BF16", "BYTES")
_FIELDS = frozenset(("dtype", "shape", "data"))


@record()
class Tensor:
    """One named input or output.

    `data` is a bytes-like object of exactly prod(shape) * itemsize bytes, or for BYTES a list of
    prod(shape) `str` or `bytes`.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview | list[Any]

    def numpy(self) -> Array:
        """The values as an array of `shape`: a read-only view of `data`, no copy.

        BF16 comes as float32 (a copy, exact); BYTES as an object array of `str` or `bytes`.
        """
        if isinstance(self.data, list):
            # Filled in place: np.array(list) would look inside the elements for a shape.
            strings = np.empty(len(self.data), dtype=object)
            strings[:] = self.data
            return strings.reshape(self.shape)
        if self.dtype == "BF16":
            words = np.frombuffer(self.data, _BF16_WORD).astype("<u4")
            return (words << np.uint32(16)).view("<f4").reshape(self.shape)
        flat: Array = np.frombuffer(self.data, _NUMERIC[self.dtype])
        return flat if len(self.shape) == 1 else flat.reshape(self.shape)

    def to_wire(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "shape": self.shape, "data": self.data}

    def __repr__(self) -> str:
        return f"Tensor({self.dtype}, shape={list(self.shape)})"


def from_numpy(array: Array) -> Tensor:
    """`array` as a tensor. A large contiguous little-endian array is not copied.

    Raises InvalidRequest for a dtype without a name in the protocol (complex, datetime, structured).
    """
    name = _NAMES.get(array.dtype)
    if name is None:
        return _from_unusual(array)
    if array.nbytes < 16_384 or not array.flags.c_contiguous:
        # Below 16 KiB copying the bytes is cheaper than making a view of them.
        return Tensor(name, array.shape, array.tobytes())
    return Tensor(name, array.shape, array.data.cast("B"))


def _from_unusual(array: Array) -> Tensor:
    kind = array.dtype.kind
    if kind in "OUS":
        strings = array.reshape(-1).tolist()
        _check_strings("value", strings)
        return Tensor("BYTES", array.shape, strings)
    if array.dtype.name == "bfloat16":  # the ml_dtypes package's type, without importing it
        return Tensor("BF16", array.shape, array.view(_BF16_WORD).tobytes())
    native = array.dtype.newbyteorder("<")
    if native in _NAMES:
        return from_numpy(array.astype(native))
    raise InvalidRequest(f"dtype {array.dtype} has no name in the protocol; use one of {', '.join(DTYPES)}")


def to_bf16(array: Array) -> Tensor:
    """Floats as BF16, rounded to nearest even as hardware does; NaN stays NaN."""
    words = np.ascontiguousarray(array, dtype="<f4").view("<u4")
    rounded = (words + np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    nan = (words & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    rounded = np.where(nan, np.uint32(0x7FC0), rounded)
    return Tensor("BF16", np.shape(array), rounded.astype(_BF16_WORD).tobytes())


def to_tensor(value: object) -> Tensor:
    """What a caller naturally has (array, number, string, nested list) as a tensor.

    Python integers become INT64 and floats FP32 (what models take); a numpy array keeps its dtype.
    Raises InvalidRequest for a ragged list or a type that has no dtype.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return from_numpy(value)
    if isinstance(value, (str, bytes)):
        return Tensor("BYTES", (), [value])
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, (str, bytes)) for one in value):
        return Tensor("BYTES", (len(value),), list(value))
    return from_numpy(_array_of(value))


def as_array(value: object) -> Array:
    """`value` as an array; strings as objects. Raises ValueError for a list of rows that differ in size."""
    try:
        array = np.asarray(value)
    except UnicodeDecodeError:
        # Bytes among strings: numpy would make strings of them, by ASCII.
        return np.asarray(value, dtype=object)
    if array.dtype.kind in "US" and array is not value:
        # numpy's own string types drop trailing NULs, and make a string of a number among strings.
        return np.asarray(value, dtype=object)
    return array


def _array_of(value: object) -> Array:
    try:
        array = as_array(value)
    except ValueError:
        raise InvalidRequest("a list must be regular: all of its rows as long as the first") from None
    if array.dtype == np.float64 and not isinstance(value, np.generic):
        return array.astype(np.float32)
    return array


def from_wire(field: str, value: object) -> Tensor:
    """The tensor in a decoded msgpack map. Raises InvalidRequest naming `field`, the limit and the value."""
    # The first test is a tenth of the second, and this runs for each request.
    if type(value) is not dict and not isinstance(value, Mapping):
        raise InvalidRequest(f"{field} must be a map of dtype, shape and data; got {shorten(value)}")
    if value.keys() != _FIELDS:
        _explain_fields(field, value)
    dtype, shape, data = value["dtype"], value["shape"], value["data"]
    count = check_shape(field, shape)
    if dtype == "BYTES":
        return Tensor(dtype, tuple(shape), _check_list(field, data, count))
    size = _SIZES.get(dtype) if isinstance(dtype, str) else None
    if size is None:
        raise InvalidRequest(f"{field}.dtype must be one of {', '.join(DTYPES)}; got {shorten(dtype)}")
    if not isinstance(data, (bytes, memoryview)):
        raise InvalidRequest(f"{field}.data must be bytes (msgpack bin) for {dtype}; got {shorten(data)}")
    if len(data) != count * size:
        raise InvalidRequest(f"{field}.data must hold {count * size} bytes for {dtype} {list(shape)}; got {len(data)}")
    return Tensor(dtype, tuple(shape), data)


def check_shape(field: str, shape: object) -> int:
    """The number of elements of `shape`, a list of at most 16 dimensions of 0 to 2^31 - 1."""
    if not isinstance(shape, (list, tuple)):
        raise InvalidRequest(f"{field}.shape must be a list of integers; got {shorten(shape)}")
    if len(shape) > MAX_RANK:
        raise InvalidRequest(f"{field}.shape must have at most {MAX_RANK} dimensions; got {len(shape)}")
    for dimension in shape:
        if type(dimension) is not int or not 0 <= dimension <= MAX_DIMENSION:
            raise InvalidRequest(
                f"{field}.shape must hold integers from 0 to {MAX_DIMENSION}; got {shorten(dimension)}"
            )
    count = math.prod(shape)
    # With a 0 among them no bytes are needed, but numpy still multiplies the others.
    if count == 0 and math.prod(filter(None, shape)) > MAX_DIMENSION:
        raise InvalidRequest(
            f"{field}.shape must hold dimensions that multiply to at most {MAX_DIMENSION}, zeros aside; "
            f"got {list(shape)}"
        )
    return count


def item_size(dtype: str) -> int:
    """Bytes of one element of a known numeric dtype."""
    return _SIZES[dtype]


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The numpy dtype in which models see a protocol dtype: float32 for BF16, object for BYTES."""
    if dtype == "BYTES":
        return np.dtype(object)
    return _NUMERIC["FP32"] if dtype == "BF16" else _NUMERIC[dtype]


def dtype_name(array: Array) -> str:
    """The protocol's name for an array's dtype. Raises InvalidRequest where there is none."""
    name = _NAMES.get(array.dtype)
    return name if name is not None else from_numpy(array[:0] if array.ndim else array).dtype


def _check_list(field: str, data: object, count: int) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidRequest(f"{field}.data must be a list of strings for BYTES; got {shorten(data)}")
    if len(data) != count:
        raise InvalidRequest(f"{field}.data must hold {count} strings for its shape; got {len(data)}")
    _check_strings(f"{field}.data", data)
    return data


def _check_strings(field: str, strings: Sequence[object]) -> None:
    if len(strings) > MAX_STRINGS:
        raise InvalidRequest(f"{field} must hold at most {MAX_STRINGS} strings; got {len(strings)}")
    for string in strings:
        if not isinstance(string, (str, bytes)):
            raise InvalidRequest(f"{field} must hold strings or bytes only; got {shorten(string)}")


def _explain_fields(field: str, value: Mapping[Any, Any]) -> None:
    missing = sorted(_FIELDS - value.keys())
    if missing:
        raise InvalidRequest(f"{field}.{missing[0]} is missing")
    unknown = sorted(shorten(name) for name in value.keys() - _FIELDS)
    raise InvalidRequest(f"{field} has an unknown field {unknown[0]}; it holds dtype, shape and data only")
