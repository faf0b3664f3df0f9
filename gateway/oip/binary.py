"""Binary tensor data: numbers little-endian and row-major; BYTES each element's length in four bytes, then it. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from common.errors import InvalidRequest
from common.names import shorten
from common.tensor import DTYPES, MAX_STRINGS, Tensor, check_shape, item_size

_LENGTH = struct.Struct("<I")


def tensor_of(field: str, dtype: object, shape: object, data: bytes | memoryview) -> Tensor:
    """`data` is not copied, but for BYTES. Raises InvalidRequest naming `field`."""
    count = check_declared(field, dtype, shape)
    dimensions: tuple[int, ...] = tuple(shape)  # type: ignore[arg-type]  # check_shape has seen that it is a list
    if dtype == "BYTES":
        return Tensor(dtype, dimensions, _strings(field, data, count))
    assert isinstance(dtype, str)
    if len(data) != count * item_size(dtype):
        raise InvalidRequest(
            f"{field} must have {count * item_size(dtype)} bytes of binary data for {dtype} {list(dimensions)}; "
            f"got {len(data)}"
        )
    return Tensor(dtype, dimensions, data)


def check_declared(field: str, dtype: object, shape: object) -> int:
    """The number of elements of a tensor that says so of itself. Raises InvalidRequest."""
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InvalidRequest(f"{field}.datatype must be one of {', '.join(DTYPES)}; got {shorten(dtype)}")
    return check_shape(field, shape)


def bytes_of(tensor: Tensor) -> bytes | memoryview:
    """A tensor as binary data."""
    return b"".join(_framed(tensor.data)) if isinstance(tensor.data, list) else tensor.data


def texts_of(strings: Sequence[bytes]) -> list[str] | list[bytes]:
    """As text where all of them are: so they arrive as they would from JSON."""
    try:
        return [one.decode() for one in strings]
    except UnicodeDecodeError:
        return list(strings)


def _strings(field: str, data: bytes | memoryview, count: int) -> list[str] | list[bytes]:
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
    return texts_of(found)


def _framed(strings: Iterable[str | bytes]) -> Iterable[bytes]:
    for one in strings:
        encoded = one.encode() if isinstance(one, str) else one
        yield _LENGTH.pack(len(encoded))
        yield encoded
