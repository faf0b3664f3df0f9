"""How the places of a take are shared out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inference_worker.shares import WEIGHTS, Shares


def test_the_first_place_is_for_high() -> None:
    assert Shares().split(1) == (1, 0, 0)


def test_single_places_alternate_by_weight() -> None:
    shares = Shares()
    given_out = [shares.split(1) for _ in range(sum(WEIGHTS))]
    assert tuple(map(sum, zip(*given_out, strict=True))) == WEIGHTS


@given(st.lists(st.integers(0, 100), min_size=1))
def test_over_time_each_priority_has_its_weight(places: list[int]) -> None:
    shares = Shares()
    totals = [0, 0, 0]
    for one in places:
        split = shares.split(one)
        assert sum(split) == one
        totals = [total + part for total, part in zip(totals, split, strict=True)]
    for total, weight in zip(totals, WEIGHTS, strict=True):
        assert abs(total - sum(places) * weight / sum(WEIGHTS)) <= len(WEIGHTS)
