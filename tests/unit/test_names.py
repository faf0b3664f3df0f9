"""Names and ids: what may enter a Redis key, and how a value is shown."""

from __future__ import annotations

import pytest

from common.errors import InvalidRequest
from common.names import check_id, check_name, check_pool, shorten


@pytest.mark.parametrize("name", ["a", "7", "all-MiniLM-L6-v2", "gpt_4.1", "x" * 128])
def test_a_name_is_letters_digits_dots_hyphens_and_underscores(name):
    assert check_name("model", name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", ".hidden", "_a", "a b", "a/b", "a:b", "a{b}", "é", "a\n", "a\0", "x" * 129, 7, None, b"a", ["a"]]
)
def test_any_other_name_is_refused_with_the_field_and_the_value(name):
    with pytest.raises(InvalidRequest) as caught:
        check_name("model", name)

    assert caught.value.message.startswith("model must be 1 to 128 letters, digits")
    assert caught.value.message.endswith(f"got {shorten(name)}")


@pytest.mark.parametrize("pool", ["gpu", "default-pool", "gpu/0", "gpu/9999"])
def test_a_pool_may_be_a_partition(pool):
    assert check_pool(pool) == pool


@pytest.mark.parametrize("pool", ["gpu/", "gpu/a", "gpu/12345", "gpu/1/2", "{gpu}", "a}b", "", None, "gpu/0\n"])
def test_a_pool_never_breaks_out_of_its_hash_tag(pool):
    with pytest.raises(InvalidRequest, match=r"^pool must be"):
        check_pool(pool)


@pytest.mark.parametrize("request_id", ["a", "b2:0f", "6f1c-4e~+=.", "x" * 128])
def test_an_id_may_be_a_uuid_a_digest_or_base64(request_id):
    assert check_id(request_id) == request_id


@pytest.mark.parametrize("request_id", ["", "a b", "a/b", "é", "x" * 129, 5, None, b"a", "a\n"])
def test_any_other_id_is_refused_with_the_value(request_id):
    with pytest.raises(InvalidRequest, match=r"^id must be 1 to 128 .* got ") as caught:
        check_id(request_id)

    assert caught.value.message.endswith(shorten(request_id))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, "5"),
        ("text", "'text'"),
        (b"\xff", r"b'\xff'"),
        ([1, 2], "a list of 2"),
        ({"a": 1}, "a dict of 1"),
        (memoryview(b"abc"), "a memoryview of 3"),
        ("two\nlines", r"'two\nlines'"),
    ],
)
def test_a_value_is_shown_on_one_line(value, shown):
    assert shorten(value) == shown


@pytest.mark.parametrize("value", ["x" * 10_000, b"x" * 10_000, 10**300, "\0" * 10_000])
def test_a_long_value_is_cut(value):
    shown = shorten(value)

    assert len(shown) == 60
    assert shown.endswith("…")
