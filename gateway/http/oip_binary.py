"""Binary tensor data, Triton's extension: after the JSON come the tensors' bytes, in the JSON's order. Pure."""

from __future__ import annotations

from common.errors import InvalidRequest
from common.names import shorten


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
