"""How many workers a pool's load asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.admin.pools import PoolStatus, Rates, WorkerStatus
from gateway.admin.scaling import AT_FIRST, CATCH_UP_S, GROWTH, TARGET, Load, desired_workers, load_of

IDLE = Load(backlog=0, arrivals=0.0, service_s=0.01, workers=3)


def pool(backlog: int = 0, taken: int = 0, workers: int = 1, **told: float) -> PoolStatus:
    about = {"state": "ready", **told}
    them = tuple(WorkerStatus(f"w{number}", 1000, about) for number in range(workers))
    return PoolStatus("p", {"normal": backlog}, taken, None, {}, 0, them, (), {}, 0)


def rates(finished: float, busy: float, grown: float = 0.0) -> Rates:
    return Rates(0.0, 0.0, 0.0, grown, finished, busy)


def test_a_pool_that_nobody_asks_wants_no_worker() -> None:
    assert desired_workers(IDLE) == 0


def test_a_first_request_wants_one() -> None:
    assert desired_workers(Load(backlog=1, arrivals=0.0, service_s=None, workers=0)) == 1


def test_where_nothing_was_measured_those_that_are_there_stay() -> None:
    assert desired_workers(Load(backlog=9000, arrivals=50.0, service_s=None, workers=3)) == 3


@pytest.mark.parametrize(
    ("arrivals", "service_s", "wanted"), [(70.0, 0.03, 3), (70.1, 0.03, 4), (0.1, 0.001, 1), (100.0, 0.007, 1)]
)
def test_steady_work_wants_workers_that_are_busy_to_the_target(arrivals: float, service_s: float, wanted: int) -> None:
    assert pytest.approx(0.7) == TARGET
    assert desired_workers(Load(0, arrivals, service_s, workers=10)) == wanted


def test_a_backlog_wants_workers_to_work_it_off_in_time() -> None:
    load = replace(IDLE, backlog=int(2 * CATCH_UP_S / 0.01))

    assert desired_workers(load) == 2


def test_one_look_asks_for_no_more_than_a_multiple_of_what_there_is() -> None:
    load = Load(backlog=10**6, arrivals=1e6, service_s=10.0, workers=5)

    assert desired_workers(load) == 5 * GROWTH
    assert desired_workers(replace(load, workers=0)) == AT_FIRST


def test_what_comes_is_what_is_finished_and_what_the_backlog_grows_by() -> None:
    load = load_of(pool(90, taken=90), rates(finished=40.0, busy=0.4, grown=5.0), pool(40, taken=40))

    assert (load.backlog, load.arrivals, load.service_s, load.workers) == (90, 45.0, pytest.approx(0.01), 1)


def test_where_work_stands_that_nobody_has_taken_a_workers_time_is_all_that_passed() -> None:
    standing = pool(backlog=100, taken=10, workers=2)

    load = load_of(standing, rates(finished=100.0, busy=0.5), standing)

    assert load.service_s == pytest.approx(2 / 100)


def test_the_first_look_knows_what_workers_say_of_their_lives() -> None:
    assert load_of(pool(workers=2, finished=10, busy_s=0.5), None, None).service_s == pytest.approx(0.05)
    assert load_of(pool(), None, None).service_s is None


def test_workers_that_load_or_drain_are_none() -> None:
    loading = pool(backlog=1, state="loading")  # type: ignore[arg-type]

    assert load_of(loading, None, None).workers == 0
