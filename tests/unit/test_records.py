"""Records: what a value is for whoever uses it."""

from __future__ import annotations

import pytest

from common.records import record


@record()
class Point:
    x: int
    y: int


@record(eq=False)
class Parcel:
    data: list[int]


def test_records_of_equal_fields_are_equal_and_hash_alike() -> None:
    assert Point(1, 2) == Point(1, 2)
    assert {Point(1, 2), Point(1, 2)} == {Point(1, 2)}


def test_a_record_without_equality_is_itself_alone_and_can_be_counted() -> None:
    one, other = Parcel([1]), Parcel([1])
    assert one != other
    assert len({one, other}) == 2


def test_a_record_takes_no_other_fields() -> None:
    with pytest.raises(AttributeError):
        Point(1, 2).z = 3  # type: ignore[attr-defined]
