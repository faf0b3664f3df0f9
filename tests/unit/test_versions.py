"""How versions of a model compare."""

from __future__ import annotations

import pytest

from common.versions import version_number, version_order


def test_numbers_sort_as_numbers_and_are_newer_than_names() -> None:
    from_old_to_new = ["beta", "latest", "0.9", "1", "1.9", "1.10", "2", "9", "v9", "10", "v10", "2024.11"]
    assert sorted(sorted(from_old_to_new), key=version_order) == from_old_to_new


@pytest.mark.parametrize(
    ("version", "number"), [("4", (4,)), ("4.0", (4,)), ("v2.0.1", (2, 0, 1)), ("2.0-rc1", None), ("latest", None)]
)
def test_a_version_is_dotted_numbers_or_a_name(version: str, number: tuple[int, ...] | None) -> None:
    assert version_number(version) == number


def test_what_is_longer_than_any_version_is_no_number() -> None:
    assert version_number("9" * 128) == (10**128 - 1,)
    assert version_number("9" * 5000) is None
