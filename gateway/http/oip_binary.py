"""Binary tensor data, Triton's extension: after the JSON come the tensors' bytes, in the JSON's order. Pure.

BYTES is each element's length as four little-endian bytes, then the element; numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from common.errors import InvalidRequest
from common.names import shorten
from common.tensor import DTYPES, MAX_STRINGS, Tensor, check_shape, item_size

_LENGTH = struct.Struct("<I")


class Buffers:
    """The bytes behind the JSON, taken one tensor after the other."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, field: str, size: object) -> memoryview:
        """Raises InvalidRequest."""
        left = len(self._data) - self._at
        if type(size) is not int or not 0 <= size <= left:
            raise InvalidRequest(
                f"{field}.parameters.binary_data_size must be an integer from 0 to the {left} bytes that are left; "
                f"got {shorten(size)}"
            )
        self._at += size
        return self._data[self._at - size : self._at]

    def check_empty(self) -> None:
        if self._at != len(self._data):
            raise InvalidRequest(f"{len(self._data) - self._at} bytes come after the last input's binary data")


def split(data: bytes, header_length: bytes) -> tuple[memoryview, memoryview]:
    """(the JSON, what follows it) by Inference-Header-Content-Length. Raises InvalidRequest."""
    length = int(header_length) if header_length.isdigit() and len(header_length) < 12 else -1
    if not 0 <= length <= len(data):
        raise InvalidRequest(
            f"Inference-Header-Content-Length must be from 0 to the body's {len(data)} bytes; "
            f"got {shorten(header_length.decode('latin-1'))}"
        )
    view = memoryview(data)
    return view[:length], view[length:]


def tensor_of(field: str, dtype: object, shape: object, data: memoryview) -> Tensor:
    """Raises InvalidRequest naming `field`."""
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InvalidRequest(f"{field}.datatype must be one of {', '.join(DTYPES)}; got {shorten(dtype)}")
    count = check_shape(field, shape)
    dimensions: tuple[int, ...] = tuple(shape)  # type: ignore[arg-type]  # check_shape has seen that it is a list
    if dtype == "BYTES":
        return Tensor(dtype, dimensions, _strings(field, data, count))
    if len(data) != count * item_size(dtype):
        raise InvalidRequest(
            f"{field} must have {count * item_size(dtype)} bytes of binary data for {dtype} {list(dimensions)}; "
            f"got {len(data)}"
        )
    return Tensor(dtype, dimensions, data)


def bytes_of(tensor: Tensor) -> bytes | memoryview:
    """A tensor as binary data."""
    return b"".join(_framed(tensor.data)) if isinstance(tensor.data, list) else tensor.data


def _strings(field: str, data: memoryview, count: int) -> list[str] | list[bytes]:
    """As text where all of them are: so they arrive as they would from JSON."""
    if count > MAX_STRINGS or count * _LENGTH.size > len(data):
        raise InvalidRequest(
            f"{field} must have as many elements as its shape, at most {MAX_STRINGS}; {count} do not fit "
            f"into {len(data)} bytes of binary data"
        )
    found: list[bytes] = []
    at = 0
    for _ in range(count):
        end = at + _LENGTH.size
        size = _LENGTH.unpack(data[at:end])[0] if end <= len(data) else len(data)
        at = end + size
        if at > len(data):
            raise InvalidRequest(f"{field}: element {len(found)} goes beyond the binary data's {len(data)} bytes")
        found.append(bytes(data[end:at]))
    if at != len(data):
        raise InvalidRequest(f"{field} has {len(data) - at} bytes of binary data after its last element")
    try:
        return [one.decode() for one in found]
    except UnicodeDecodeError:
        return found


def _framed(strings: Iterable[str | bytes]) -> Iterable[bytes]:
    for one in strings:
        encoded = one.encode() if isinstance(one, str) else one
        yield _LENGTH.pack(len(encoded))
        yield encoded
