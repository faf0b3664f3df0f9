"""Which signals are wishes of their own."""

from __future__ import annotations

from inference_worker.supervision.stopsignals import ECHO_S, Wishes


def test_a_signal_soon_after_another_is_its_echo_and_a_later_one_is_not() -> None:
    times = iter([10.0, 10.001, 10.0 + ECHO_S - 0.01, 10.0 + ECHO_S, 10.0 + ECHO_S + 0.01])
    wishes = Wishes(lambda: next(times))

    assert [wishes.is_new() for _ in range(5)] == [True, False, False, True, False]
