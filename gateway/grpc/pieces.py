"""Of how many pieces a protobuf message is, told from its bytes before it is read. Pure.

Two bytes of an empty submessage become a hundred in memory, so that 60 MB of them take gigabytes, and 60 kB of those
compressed. What is plain bytes, such as raw contents, takes no more than it came as and may be as large as any message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from common.errors import InvalidRequest
from common.wire import MAX_BYTES

#: The largest request that is sound has about 64 times 20.
MAX_FIELDS = 4096
#: Shapes and typed contents take up to sixteen times their bytes.
MAX_TYPED = MAX_BYTES // 4

#: By number the fields that are looked into; None for one whose values are typed ones.
Inside: TypeAlias = Mapping[int, "Inside | None"]

_SHAPE, _CONTENTS, _INPUTS, _OUTPUTS = 3, 5, 5, 6
INFER_REQUEST: Inside = {_INPUTS: {_SHAPE: None, _CONTENTS: None}, _OUTPUTS: {}}

#: Of a number.
_MOST_BYTES = 10
_VARINT, _FIXED64, _BYTES, _FIXED32, _NO_KIND = 0, 1, 2, 5, 6


def check_pieces(data: bytes, inside: Inside) -> None:
    """Raises InvalidRequest for too many. What is malformed ends the count: whoever reads it finds that out, too."""
    try:
        _Count().walk(data, 0, len(data), inside)
    except (IndexError, _Malformed):
        return


class _Malformed(Exception):
    """It is no protobuf."""


class _Count:
    def __init__(self) -> None:
        self._fields = 0
        self._typed = 0

    def walk(self, data: bytes, at: int, end: int, inside: Inside) -> None:
        while at < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise InvalidRequest(f"a message must have at most {MAX_FIELDS} fields, those in fields included")
            tag, at = _varint(data, at)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                _, at = _varint(data, at)
            elif kind == _BYTES:
                size, at = _varint(data, at)
                if at + size > end:
                    return
                if number in inside:
                    self._look_into(data, at, at + size, inside[number])
                at += size
            elif kind >= _NO_KIND:
                return
            else:
                at += {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)

    def _look_into(self, data: bytes, at: int, end: int, inside: Inside | None) -> None:
        if inside is not None:
            self.walk(data, at, end, inside)
            return
        self._typed += end - at
        if self._typed > MAX_TYPED:
            raise InvalidRequest(
                f"the shapes and contents of all inputs must take at most {MAX_TYPED} bytes: send raw_input_contents"
            )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, where it ends). Raises _Malformed, or IndexError where it does not end."""
    found = 0
    for shift in range(0, 7 * _MOST_BYTES, 7):
        byte = data[at]
        found |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return found, at
    raise _Malformed
