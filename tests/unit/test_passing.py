"""For how long the intake looks for others' requests while a tenant's backlog fills the holding."""

from __future__ import annotations

import pytest

from inference_worker.passing import LONGEST_S, Passing

HIGH, NORMAL, NORMAL_BULK = 0, 1, 4


def full_for(passing: Passing, seconds: float) -> None:
    passing.saw(0, 100.0)
    passing.saw(0, 100.0 + seconds / 2)
    passing.saw(8, 100.0 + seconds)


def test_others_are_looked_for_only_behind_a_tenants_backlog() -> None:
    passing = Passing()
    assert not passing.wanted

    passing.took([NORMAL, NORMAL_BULK])
    assert passing.wanted

    passing.took([HIGH, NORMAL])
    assert not passing.wanted


@pytest.mark.parametrize(("full_s", "look_s"), [(0.001, 0.0), (0.01, 0.005), (60.0, LONGEST_S)])
def test_a_look_ends_before_the_held_work_can_have_run_out(full_s: float, look_s: float) -> None:
    passing = Passing()

    full_for(passing, full_s)

    assert passing.look_s == pytest.approx(look_s)


def test_as_long_as_it_is_not_known_how_long_batches_take_no_read_blocks() -> None:
    passing = Passing()
    passing.saw(64, 0.0)
    passing.saw(0, 1.0)

    assert passing.look_s == 0.0
