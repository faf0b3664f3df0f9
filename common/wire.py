"""Bytes to a plain msgpack map and back, within limits on size and nesting. Knows nothing of requests."""

from __future__ import annotations

from typing import Any, cast

import msgpack

from common.errors import InvalidRequest, PayloadTooLarge

MAX_BYTES = 64 * 1024 * 1024
MAX_NESTING = 16
#: Up to here msgpack reads at once. A longer list is looked over first: its elements must really be there.
QUICK_LIST = 4096
MAX_LIST = 1_048_576
MAX_MAP = 1024

_FIXED_SIZES = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8,
    0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
}  # fmt: skip
_BLOB_HEADS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_LIST_HEADS = {0xDC: 2, 0xDD: 4}
_MAP_HEADS = {0xDE: 2, 0xDF: 4}

_MALFORMED = (ValueError, msgpack.exceptions.UnpackException)


def pack(value: dict[str, Any]) -> bytes:
    """`value` as msgpack. Raises InvalidRequest for a type or an integer that msgpack cannot hold."""
    try:
        packed = cast(bytes, msgpack.packb(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"the message cannot be encoded as msgpack: {error}") from error
    return packed


def unpack_map(what: str, data: bytes) -> dict[str, Any]:
    """The map in `data`. Raises InvalidRequest, PayloadTooLarge; `what` names the message in them."""
    if len(data) > MAX_BYTES:
        raise PayloadTooLarge(f"{what} must have at most {MAX_BYTES} bytes; got {len(data)}")
    try:
        value = _unpack(data, QUICK_LIST)
    except _MALFORMED:
        # Either malformed or merely long: the scan tells, and allocates nothing while it looks.
        scan(what, data)
        value = _unpack_again(what, data)
    if type(value) is not dict:
        raise InvalidRequest(f"{what} must be a msgpack map; got {type(value).__name__}")
    return cast(dict[str, Any], value)


def _unpack(data: bytes, longest: int) -> object:
    return msgpack.unpackb(data, max_array_len=longest, max_map_len=MAX_MAP, max_ext_len=0)


def _unpack_again(what: str, data: bytes) -> object:
    try:
        return _unpack(data, MAX_LIST)
    except _MALFORMED as error:
        raise InvalidRequest(f"{what} is not valid msgpack: {error}") from error


def scan(what: str, data: bytes) -> None:
    """Walk over one msgpack value without building it: complete, within the limits, nothing behind it.

    msgpack allocates a list as long as its head declares before it reads the elements; nested heads
    would make it allocate gigabytes for a message of a megabyte.
    """
    position = 0
    left: list[int] = [1]
    while left:
        if left[-1] == 0:
            left.pop()
            continue
        left[-1] -= 1
        position, children = _step(what, data, position)
        if children:
            if len(left) >= MAX_NESTING:
                raise InvalidRequest(f"{what} must not nest deeper than {MAX_NESTING} levels")
            left.append(children)
    if position != len(data):
        raise InvalidRequest(f"{what} has {len(data) - position} bytes after its end")


def _step(what: str, data: bytes, at: int) -> tuple[int, int]:
    """(position after the head or scalar at `at`, number of values nested in it)."""
    if at >= len(data):
        raise InvalidRequest(f"{what} is truncated: it ends after {len(data)} bytes inside a value")
    head = data[at]
    at += 1
    if head < 0x80 or head >= 0xE0:
        return at, 0
    if head < 0x90:
        return at, (head & 0x0F) * 2
    if head < 0xA0:
        return at, head & 0x0F
    if head < 0xC0:
        return _skip(what, data, at, head & 0x1F), 0
    if head in _FIXED_SIZES:
        return _skip(what, data, at, _FIXED_SIZES[head]), 0
    if head in _BLOB_HEADS:
        at, size = _length(what, data, at, _BLOB_HEADS[head])
        return _skip(what, data, at, size), 0
    if head in _LIST_HEADS:
        at, size = _length(what, data, at, _LIST_HEADS[head])
        return at, _bounded(what, "list", size, MAX_LIST)
    if head in _MAP_HEADS:
        at, size = _length(what, data, at, _MAP_HEADS[head])
        return at, _bounded(what, "map", size, MAX_MAP) * 2
    raise InvalidRequest(f"{what} holds a msgpack type (0x{head:02x}) that the protocol does not use")


def _length(what: str, data: bytes, at: int, width: int) -> tuple[int, int]:
    end = _skip(what, data, at, width)
    return end, int.from_bytes(data[at:end], "big")


def _skip(what: str, data: bytes, at: int, size: int) -> int:
    if size > len(data) - at:
        raise InvalidRequest(f"{what} is truncated: a value declares {size} bytes where {len(data) - at} are left")
    return at + size


def _bounded(what: str, kind: str, size: int, limit: int) -> int:
    if size > limit:
        raise InvalidRequest(f"{what} must hold no {kind} of more than {limit} entries; got {size}")
    return size
