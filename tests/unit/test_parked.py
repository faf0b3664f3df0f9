"""Entries that wait for their model."""

from __future__ import annotations

from common.scripts import Entry
from inference_worker.models.registry import Key
from inference_worker.parked import MOST_PARKED, Parked

A, B = ("a", "1"), ("b", "1")


def entry(number: int) -> Entry:
    return Entry(1, f"{number}-0".encode(), b"", None, b"", 0)


def test_those_whose_model_is_there_come_out_in_order_and_the_others_stay() -> None:
    loading: set[Key] = {A, B}
    parked = Parked(loading.__contains__)
    for number, key in enumerate((A, B, A)):
        parked.add(entry(number), key)
    assert parked.take_ready() == []

    loading.remove(A)

    assert parked.take_ready() == [entry(0), entry(2)]
    assert list(parked) == [entry(1)]


def test_there_is_room_for_a_few() -> None:
    parked = Parked(lambda key: True)
    for number in range(MOST_PARKED):
        assert parked.room == MOST_PARKED - number
        parked.add(entry(number), A)
    assert parked.room == 0
