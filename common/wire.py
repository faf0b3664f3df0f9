"""Bytes to a plain msgpack map and back, within limits on size, nesting and values. Knows nothing of requests."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, cast

import msgpack

from common.errors import InvalidRequest, PayloadTooLarge

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024 * 1024
MAX_NESTING = 16
#: Up to here msgpack reads at once. A longer list is looked over first: its elements must really be there.
QUICK_LIST = 4096
MAX_LIST = 1_048_576
MAX_MAP = 1024
#: Names and values of one message, at all levels: room for a tensor of MAX_LIST strings and whatever comes with it.
#: A byte may become a map of a hundred. Within the limits the worst message takes 0.9 s and 330 MB (long strings).
MAX_VALUES = MAX_LIST + 65_536

_FIXED_SIZES = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8,
    0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
}  # fmt: skip
_BLOB_HEADS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_LIST_HEADS = {0xDC: 2, 0xDD: 4}
_MAP_HEADS = {0xDE: 2, 0xDF: 4}


def _scalar_size(head: int) -> int:
    """Bytes of the whole value, where its first byte tells; 0 where it does not."""
    if head < 0x80 or head >= 0xE0:
        return 1
    if 0xA0 <= head < 0xC0:
        return 1 + (head & 0x1F)
    return 1 + _FIXED_SIZES[head] if head in _FIXED_SIZES else 0


_SCALAR_SIZES = tuple(_scalar_size(head) for head in range(256))

_MALFORMED = (ValueError, msgpack.exceptions.UnpackException)


def pack(value: dict[str, Any]) -> bytes:
    """`value` as msgpack. Raises InvalidRequest for what msgpack cannot hold, or `unpack_map` would refuse."""
    try:
        packed = cast(bytes, msgpack.packb(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"the message cannot be encoded as msgpack: {error}") from error
    if MAX_VALUES < len(packed) <= MAX_BYTES:
        scan("the message", packed)
    return packed


def unpack_map(what: str, data: bytes) -> dict[str, Any]:
    """The map in `data`. Raises InvalidRequest, PayloadTooLarge; `what` names the message in them."""
    if len(data) > MAX_BYTES:
        raise PayloadTooLarge(f"{what} must have at most {MAX_BYTES} bytes; got {len(data)}")
    value = _unpack_short(what, data) if len(data) <= MAX_VALUES else _unpack_scanned(what, data)
    if type(value) is not dict:
        raise InvalidRequest(f"{what} must be a msgpack map; got {type(value).__name__}")
    return cast(dict[str, Any], value)


def _unpack_short(what: str, data: bytes) -> object:
    """Of at most MAX_VALUES bytes, and so of no more values."""
    try:
        return _unpack(data, QUICK_LIST)
    except _MALFORMED:
        # Either malformed or merely with a long list: the scan tells.
        return _unpack_scanned(what, data)


def _unpack_scanned(what: str, data: bytes) -> object:
    scan(what, data)
    try:
        return _unpack(data, MAX_LIST)
    except _MALFORMED as error:
        raise InvalidRequest(f"{what} is not valid msgpack: {error}") from error


def _unpack(data: bytes, longest: int) -> object:
    return msgpack.unpackb(data, max_array_len=longest, max_map_len=MAX_MAP, max_ext_len=0)


def peek(data: bytes, names: Collection[str]) -> dict[str, str]:
    """The strings under these names in a map that may be malformed behind them, or over any limit. Raises nothing.

    Whatever else is there is passed over without being built.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=MAX_BYTES, max_array_len=0, max_map_len=0, max_ext_len=0)
    found: dict[str, str] = {}
    try:
        unpacker.feed(memoryview(data)[:MAX_BYTES])
        for _ in range(unpacker.read_map_header()):
            name = unpacker.unpack()
            if name not in names:
                unpacker.skip()
            elif isinstance(value := unpacker.unpack(), str):
                found[name] = value
    except Exception as malformed:
        log.debug("a message can be read no further: %s", malformed)
    return found


def scan(what: str, data: bytes) -> None:
    """Walk over one msgpack value without building it: complete, within the limits, nothing behind it.

    msgpack allocates a list as long as its head declares before it reads the elements; nested heads
    would make it allocate gigabytes for a message of a megabyte. And it builds every value that is there,
    of which a message may hold as many as it has bytes.
    """
    position, end = 0, len(data)
    values = left = 1  # left: values still to come at this level
    outer: list[int] = []  # and at each level around it
    while left or outer:
        if not left:
            left = outer.pop()
            continue
        left -= 1
        size = _SCALAR_SIZES[data[position]] if position < end else 0
        if size and position + size <= end:
            position += size
            continue
        position, children = _step(what, data, position)
        if children:
            values += children
            _check_levels_and_values(what, len(outer) + 1, values)
            outer.append(left)
            left = children
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


def _check_levels_and_values(what: str, levels: int, values: int) -> None:
    if levels >= MAX_NESTING:
        raise InvalidRequest(f"{what} must not nest deeper than {MAX_NESTING} levels")
    if values > MAX_VALUES:
        raise InvalidRequest(f"{what} must hold at most {MAX_VALUES} names and values in all; it declares more")


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
