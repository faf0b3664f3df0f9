"""msgpack within limits: what is malformed is refused before memory is taken for it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import msgpack
import pytest

from common.errors import InvalidRequest, PayloadTooLarge
from common.wire import MAX_BYTES, MAX_LIST, MAX_MAP, MAX_NESTING, MAX_VALUES, QUICK_LIST, pack, scan, unpack_map

MIB = 1024 * 1024


def list_head(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")


def map_head(count: int) -> bytes:
    return b"\xdf" + count.to_bytes(4, "big")


def field(value: bytes) -> bytes:
    """A map with one field, `a`, that holds `value`."""
    return b"\x81\xa1a" + value


def peak_bytes(action: Callable[[], object]) -> int:
    """The most memory that `action` held at once, beyond what was there before."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        unpack_map("the request", data)
    return caught.value.message


# -- what is well-formed ----------------------------------------------------------------------------------------------

EVERY_TYPE = {
    "nil": None,
    "bool": [True, False],
    "ints": [0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1],
    "negative": [-1, -32, -33, -128, -129, -32_768, -32_769, -(2**31), -(2**31) - 1, -(2**63)],
    "float": 1.5,
    "strings": ["", "a" * 31, "a" * 32, "a" * 255, "a" * 256, "a" * 70_000, "grüße"],
    "bins": [b"", b"a" * 255, b"a" * 256, b"a" * 70_000],
    "lists": [[], [0] * 15, [0] * 16],
    "maps": [{}, {str(i): i for i in range(15)}, {str(i): i for i in range(16)}],
}


def test_every_type_of_the_protocol_comes_back_equal():
    assert unpack_map("the request", pack(EVERY_TYPE)) == EVERY_TYPE


def test_the_scan_accepts_what_msgpack_accepts():
    scan("the request", pack(EVERY_TYPE))
    scan("the request", msgpack.packb({"f32": [1.5]}, use_single_float=True))


@pytest.mark.parametrize("length", [QUICK_LIST, QUICK_LIST + 1, 70_000])
def test_a_long_list_comes_back_equal(length):
    value = {"strings": [str(i) for i in range(length)]}

    assert unpack_map("the request", pack(value)) == value


def test_a_map_at_the_limit_comes_back_equal():
    value = {str(i): i for i in range(MAX_MAP)}

    assert unpack_map("the request", pack(value)) == value


def test_a_list_at_the_limit_comes_back_equal():
    value = {"data": ["a"] * MAX_LIST, "shape": [MAX_LIST], "dtype": "BYTES"}

    assert unpack_map("the request", pack(value)) == value


# -- what is not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the request is truncated: it ends after 0 bytes inside a value"),
        (b"\x81", "the request is truncated: it ends after 1 bytes inside a value"),
        (b"\x81\xa1a", "the request is truncated: it ends after 3 bytes inside a value"),
        (field(b"\xa5abc"), "the request is truncated: a value declares 5 bytes where 3 are left"),
        (
            field(b"\xc6\xff\xff\xff\xff"),
            "the request is truncated: a value declares 4294967295 bytes where 0 are left",
        ),
        (field(b"\xcf\0\0"), "the request is truncated: a value declares 8 bytes where 2 are left"),
        (field(b"\xc5\0"), "the request is truncated: a value declares 2 bytes where 1 are left"),
        (pack({"a": 1}) + b"\0\0", "the request has 2 bytes after its end"),
        (field(b"\xc1"), "the request holds a msgpack type (0xc1) that the protocol does not use"),
        (field(b"\xd6\xff\0\0\0\0"), "the request holds a msgpack type (0xd6) that the protocol does not use"),
        (field(b"\xc7\x05\x01hello"), "the request holds a msgpack type (0xc7) that the protocol does not use"),
        (b"\x93\1\2\3", "the request must be a msgpack map; got list"),
        (b"\xc0", "the request must be a msgpack map; got NoneType"),
        (b"plain text", "the request has 9 bytes after its end"),
    ],
)
def test_malformed_bytes_are_refused_with_what_is_wrong(data, message):
    assert refusal(data) == message


@pytest.mark.parametrize("data", [b"\x81\x01\x02", b"\x81\x90\x02", field(b"\xa2\xff\xfe")])
def test_a_key_that_is_no_string_and_text_that_is_no_utf8_are_refused(data):
    assert refusal(data).startswith("the request is not valid msgpack: ")


def test_a_list_over_the_limit_is_refused_with_limit_and_value():
    assert refusal(field(list_head(MAX_LIST + 1))) == (
        f"the request must hold no list of more than {MAX_LIST} entries; got {MAX_LIST + 1}"
    )


def test_a_map_over_the_limit_is_refused_with_limit_and_value():
    assert refusal(field(map_head(MAX_MAP + 1))) == (
        f"the request must hold no map of more than {MAX_MAP} entries; got {MAX_MAP + 1}"
    )


@pytest.mark.parametrize(
    "values",
    [
        list_head(300) + (list_head(QUICK_LIST) + b"\x90" * QUICK_LIST) * 300,
        list_head(2) + (list_head(MAX_VALUES // 2) + b"\xc0" * (MAX_VALUES // 2)) * 2,
        list_head(600) + (b"\xde\x04\x00" + b"\xa1a\xc0" * MAX_MAP) * 600,
    ],
    ids=["quick lists in a list", "two long lists", "maps"],
)
def test_a_message_of_too_many_values_is_refused_with_the_limit_before_one_is_built(values):
    message = field(values)

    assert refusal(message) == f"the request must hold at most {MAX_VALUES} names and values in all; it declares more"
    assert peak_bytes(lambda: refusal(message)) < 64 * 1024


def test_a_message_of_too_many_values_is_refused_when_it_is_encoded_too():
    with pytest.raises(InvalidRequest, match=f"^the message must hold at most {MAX_VALUES} names and values"):
        pack({"a": [[0] * QUICK_LIST] * 300})


@pytest.mark.parametrize("nested", [b"\x91" * 1_000_000, b"\x81\xa1a" * 300_000, list_head(1) * 200_000])
def test_a_nesting_bomb_is_refused_with_the_limit(nested):
    assert refusal(field(nested + b"\0")) == f"the request must not nest deeper than {MAX_NESTING} levels"


def test_a_message_over_the_size_limit_is_refused_unread():
    with pytest.raises(
        PayloadTooLarge, match=f"^the request must have at most {MAX_BYTES} bytes; got {MAX_BYTES + 1}$"
    ):
        unpack_map("the request", bytes(MAX_BYTES + 1))


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, object(), {1, 2}, float])
def test_what_msgpack_cannot_hold_is_refused_when_it_is_encoded(value):
    with pytest.raises(InvalidRequest, match=r"^the message cannot be encoded as msgpack: "):
        pack({"a": value})


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        field(list_head(1_000_000)),
        field(list_head(2**32 - 1)),
        field(map_head(2**32 - 1)),
        # Each head would be given room for all the elements that it declares, before one of them is read.
        field((list_head(1_000_000) + b"\x00") * 15),
        field(b"\x9f" + (list_head(4096) + b"\0" * 10) * 15),
        b"\x91" * (4 * MIB),
        field(list_head(4096) * 1000),
    ],
    ids=["list", "largest list", "largest map", "nested lists", "lists in a list", "nesting", "nested quick lists"],
)
def test_a_head_that_declares_millions_takes_no_memory(data):
    """Less than the largest message itself may take."""
    assert peak_bytes(lambda: refusal(data)) < len(data) + 40 * MIB


def test_the_scan_takes_no_memory_whatever_it_meets():
    data = field(list_head(100_000) + b"\x00" * 100_000)

    assert peak_bytes(lambda: scan("the request", data)) < 16 * 1024


def test_a_long_string_is_not_copied_into_an_error():
    text = msgpack.packb("x" * (8 * MIB))

    assert peak_bytes(lambda: refusal(text)) < 17 * MIB
    assert len(refusal(text)) < 200
