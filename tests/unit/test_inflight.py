"""When a batch begins beside those that a device works on. Pure: the clock is a number."""

from __future__ import annotations

import pytest

from inference_worker.inflight import ALONE_FOR, LEAST_LEAD_S, InFlight
from inference_worker.item import Batch, batch_of
from tests.support.items import model, parts


def batch(depth: int = 2) -> Batch:
    loaded = model()
    loaded.backend.depth = depth
    return batch_of(parts(loaded, [1.0]))


def test_on_an_idle_device_a_batch_begins_at_once() -> None:
    assert InFlight().wait_s(0.0) == 0.0


def test_the_second_batch_begins_just_before_the_device_is_free() -> None:
    flights = InFlight()
    flights.begin(batch(), expected_s=1.0, at_s=10.0, now_s=10.0)

    assert flights.wait_s(10.2) == pytest.approx(0.8 - LEAST_LEAD_S)
    assert flights.wait_s(11.5) == 0.0


def test_the_longer_the_host_needs_to_begin_a_batch_the_earlier_it_does() -> None:
    flights = InFlight()
    for second in range(100):
        flights.begin(batch(), expected_s=1.0, at_s=second, now_s=second + 0.1)
        flights.land(second + 1.0)
    flights.begin(batch(), expected_s=1.0, at_s=200.0, now_s=200.1)

    assert flights.wait_s(200.1) == pytest.approx(1.0 - 0.1 - 2 * 0.1, abs=1e-3)


@pytest.mark.parametrize("depth", [2, 3])
def test_no_more_are_under_way_than_the_model_allows(depth: int) -> None:
    flights = InFlight()
    for _ in range(depth):
        assert flights.wait_s(0.0) == 0.0
        flights.begin(batch(depth), expected_s=0.0, at_s=0.0, now_s=0.0)

    assert flights.wait_s(100.0) is None
    flights.land(100.0)
    assert flights.wait_s(100.0) == 0.0


def test_the_time_of_a_batch_begins_when_the_one_before_it_has_landed() -> None:
    flights = InFlight()
    first, second = batch(), batch()
    flights.begin(first, expected_s=1.0, at_s=0.0, now_s=0.0)
    flights.begin(second, expected_s=1.0, at_s=0.5, now_s=0.5)
    assert flights.oldest == (first, 0.0)

    assert flights.land(1.0)[1:] == (0.0, 1.0)

    assert flights.oldest == (second, 1.0)
    assert flights.land(3.0)[1:] == (1.0, 2.0)
    assert flights.oldest is None


def test_after_a_batch_that_did_not_fit_beside_another_each_is_alone_for_a_while() -> None:
    flights = InFlight()
    flights.crowded()

    for number in range(ALONE_FOR):
        flights.begin(batch(), expected_s=0.0, at_s=number, now_s=number)
        assert flights.wait_s(number + 0.5) is None
        flights.land(number + 1.0)
    flights.begin(batch(), expected_s=0.0, at_s=1000.0, now_s=1000.0)

    assert flights.wait_s(1000.0) == 0.0


def test_whoever_was_under_way_with_another_is_told() -> None:
    flights = InFlight()
    for _ in range(2):
        flights.begin(batch(), expected_s=0.0, at_s=0.0, now_s=0.0)
    assert [flights.land(1.0)[0].beside for _ in range(2)] == [True, True]

    flights.begin(batch(), expected_s=0.0, at_s=2.0, now_s=2.0)
    assert flights.land(3.0)[0].beside is False
