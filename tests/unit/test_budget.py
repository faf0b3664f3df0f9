"""Which models go for another one."""

from __future__ import annotations

import pytest

from common.errors import ModelUnavailable
from inference_worker.models.budget import Budget, Resident

MB = 2**20


def resident(name: str, used_s: float, size: int = 50 * MB, **more: bool) -> Resident:
    return Resident((name, "1"), size, used_s, **more)


def victims(*residents: Resident, limit: int = 150 * MB, need: int = 50 * MB) -> list[str]:
    return [name for name, _ in Budget(limit).victims("model 'x:1'", need, residents)]


def test_while_there_is_room_none_goes() -> None:
    assert victims(resident("a", 1), resident("b", 2)) == []


def test_the_least_recently_used_goes_first() -> None:
    assert victims(resident("a", 3), resident("b", 1), resident("c", 2)) == ["b"]


def test_as_many_go_as_the_new_one_needs() -> None:
    assert victims(resident("a", 3), resident("b", 1), resident("c", 2), need=120 * MB) == ["b", "c", "a"]


def test_one_that_stays_never_goes() -> None:
    assert victims(resident("a", 1, stays=True), resident("b", 2), resident("c", 3)) == ["b"]


def test_one_that_is_idle_goes_before_one_that_is_busy() -> None:
    assert victims(resident("a", 1, busy=True), resident("b", 2), resident("c", 3, busy=True)) == ["b"]


def test_a_busy_one_goes_where_no_idle_one_suffices() -> None:
    assert victims(resident("a", 1, busy=True), resident("b", 2, stays=True), resident("c", 3, busy=True)) == ["a"]


def test_one_whose_requests_have_waited_for_it_does_not_go_before_they_use_it() -> None:
    assert victims(resident("a", 1, awaited=True), resident("b", 2, awaited=True), resident("c", 3)) == ["c"]
    assert victims(*(resident(name, 1, awaited=True) for name in "abc")) == []


def test_what_can_never_fit_is_refused_with_figures() -> None:
    with pytest.raises(ModelUnavailable) as caught:
        victims(resident("a", 1, stays=True), resident("b", 2), need=120 * MB)

    assert str(caught.value) == (
        "model 'x:1' needs 120.0 MiB and can have 100.0 MiB: the memory budget is 150.0 MiB, of which models that "
        "stay take 50.0 MiB; raise --memory-budget, or unload something first"
    )
