"""When a child that ended is started again."""

from __future__ import annotations

import pytest

from inference_worker.processes.exitcodes import Exit
from inference_worker.supervision.restarts import Restarts


def crash(restarts, times, ran_s=1.0, was_ready=False):
    return [restarts.ended(1, ran_s, was_ready) for _ in range(times)]


def test_waits_double_from_half_a_second_to_half_a_minute_with_jitter():
    waits = crash(Restarts(), 10)

    for wait, most in zip(waits, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30], strict=True):
        assert most / 2 <= wait <= most


def test_a_fleet_does_not_come_back_all_at_once():
    assert len({crash(Restarts(), 1)[0] for _ in range(20)}) > 10


def test_a_child_that_ran_for_a_minute_starts_again_at_the_shortest_wait():
    restarts = Restarts()
    crash(restarts, 6)

    assert restarts.ended(-9, 60.0, True) <= 1.0


@pytest.mark.parametrize("code", [0, 1, 3, -9, -11])
def test_any_end_that_nobody_asked_for_is_a_crash(code):
    assert Restarts().ended(code, 1.0, True) is not None


def test_a_configuration_error_is_not_tried_again():
    assert Restarts().ended(Exit.CONFIG, 1.0, False) is None


def test_five_crashes_without_ever_being_ready_are_a_crash_loop():
    restarts = Restarts()

    crash(restarts, 4)
    assert not restarts.looping
    crash(restarts, 1)
    assert restarts.looping


def test_a_child_that_was_ready_in_between_is_in_no_crash_loop():
    restarts = Restarts()
    crash(restarts, 4)

    crash(restarts, 1, was_ready=True)
    crash(restarts, 4)

    assert not restarts.looping


def test_restarts_are_counted():
    restarts = Restarts()
    crash(restarts, 3)

    assert restarts.count == 3
