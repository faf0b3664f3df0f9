"""What a batch is thought to take, by what the batches before it took."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.batching.cost import KNOWN_AFTER, PRIOR_FIXED, STALE_AFTER, TRIAL_EVERY, CostModel

#: In the middle of their cells, each in one of its own.
SIZES = (12, 48, 192, 768)


def taught(seconds: Callable[[int], float], sizes: Iterable[int] = SIZES * 10) -> CostModel:
    cost = CostModel()
    for size in sizes:
        cost.learn(size, size, seconds(size))
    return cost


def line(size: int) -> float:
    return 0.006 + 0.0001 * size


def test_before_a_batch_has_run_no_batch_looks_late() -> None:
    assert CostModel().seconds(10**6) < 0.01


def test_from_one_size_alone_it_takes_a_call_to_cost_as_much_as_some_elements() -> None:
    cost = taught(lambda size: 0.1, [100])
    assert cost.seconds(100) == pytest.approx(0.1)
    assert cost.fixed_s == pytest.approx(PRIOR_FIXED * cost.element_s)


def test_it_finds_the_fixed_cost_and_the_cost_of_an_element() -> None:
    cost = taught(line)
    assert cost.fixed_s == pytest.approx(0.006)
    assert cost.element_s == pytest.approx(0.0001)
    assert cost.seconds(400) == pytest.approx(line(400))


def test_where_large_batches_are_slower_than_the_line_it_knows() -> None:
    cost = taught(lambda size: line(size) * (2.5 if size > 500 else 1))
    assert cost.seconds(768) == pytest.approx(2.5 * line(768), rel=0.05)
    assert cost.seconds(48) == pytest.approx(line(48), rel=0.15)


def test_sizes_that_were_never_tried_lie_on_the_line() -> None:
    assert taught(line).seconds(5000) == pytest.approx(line(5000))


def test_a_first_run_that_compiles_something_is_forgotten_with_the_second() -> None:
    cost, ran = CostModel(), set[int]()
    for size in SIZES * 10:
        cost.learn(size, size, line(size) if size in ran else 10.0)
        ran.add(size)
    assert cost.seconds(192) == pytest.approx(line(192), rel=0.01)


def test_a_batch_that_something_else_held_up_counts_little() -> None:
    cost = taught(line)
    cost.learn(192, 192, 60.0)
    assert cost.seconds(192) < 1.3 * line(192)


def test_a_device_that_has_become_slower_is_followed() -> None:
    cost = taught(line)
    for size in SIZES * 40:
        cost.learn(size, size, 10 * line(size))
    assert cost.seconds(192) == pytest.approx(10 * line(192), rel=0.05)


def test_noise_is_averaged_out() -> None:
    draw = random.Random(5)
    cost = taught(lambda size: line(size) * draw.uniform(0.8, 1.2), SIZES * 100)
    assert cost.seconds(192) == pytest.approx(line(192), rel=0.1)


def test_an_element_is_worth_the_going_rate_but_never_more_than_alone() -> None:
    cost = taught(line)
    rate = cost.rate_s
    assert cost.worth_s(1000, parts=100) == pytest.approx(1000 * rate)
    assert cost.worth_s(1000, parts=1) == pytest.approx(line(1000))


def test_a_size_that_is_not_known_is_tried_now_and_then_and_only_until_it_is() -> None:
    cost = taught(line)
    tried = 0
    for _ in range(10 * TRIAL_EVERY):
        if cost.trial_due and cost.try_now(20_000):
            tried += 1
            cost.learn(20_000, 20_000, line(20_000))
        else:
            cost.learn(192, 192, line(192))
    assert tried == KNOWN_AFTER


def test_a_size_that_was_not_seen_for_long_is_tried_again() -> None:
    cost = taught(line, (*SIZES * 10, *[192] * (STALE_AFTER + 1)))
    assert not cost.try_now(192)
    assert cost.try_now(768)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1e4)), min_size=1, max_size=60), st.integers(1, 10**7))
def test_no_prediction_is_below_zero_or_no_number(batches: list[tuple[int, float]], size: int) -> None:
    cost = CostModel()
    for ran, seconds in batches:
        cost.learn(ran, ran, seconds)
        assert 0 <= cost.seconds(size) < float("inf")
        assert cost.fixed_s >= 0
        assert cost.element_s >= 0
