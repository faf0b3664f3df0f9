"""What happens often is logged seldom, and nothing of it is lost."""

from __future__ import annotations

from inference_worker.seldom import Outage, Seldom


def test_the_first_time_is_told_at_once_and_then_each_minute_how_often() -> None:
    seldom = Seldom(60.0)

    counts = [seldom.count("m:1", now_s) for now_s in (0.0, 1.0, 59.0, 60.0, 61.0, 300.0)]

    assert counts == [1, 0, 0, 3, 0, 2]


def test_each_key_has_a_minute_of_its_own() -> None:
    seldom = Seldom(60.0)

    assert [seldom.count(key, 0.0) for key in ("m:1", "m:2", "m:1")] == [1, 1, 0]


def test_an_outage_is_told_at_once_then_each_minute_and_once_that_it_is_over() -> None:
    outage = Outage(60.0)

    assert [outage.goes_on(now_s) for now_s in (0.0, 2.0, 59.0, 60.0)] == [True, False, False, True]
    assert [outage.over(), outage.over()] == [True, False]


def test_outages_close_on_one_another_tell_neither_their_beginning_nor_their_end_each_time() -> None:
    outage = Outage(60.0)

    told = [(outage.goes_on(now_s), outage.over()) for now_s in (0.0, 1.0, 2.0, 61.0)]

    assert told == [(True, True), (False, False), (False, False), (True, True)]


def test_what_never_was_away_is_never_back() -> None:
    assert not Outage().over()
