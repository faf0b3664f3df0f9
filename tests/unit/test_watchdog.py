"""When a child counts as one that hangs."""

from __future__ import annotations

from typing import Any

from inference_worker.supervision.watchdog import SILENT_S, Watchdog


def line(
    running: str = "", busy_s: float = 0.0, limit_s: float = 0.0, longest_s: float | None = 60.0
) -> dict[str, Any]:
    return {"running": running, "busy_ms": busy_s * 1000, "limit_s": limit_s, "longest_s": longest_s}


def test_a_child_that_loads_and_has_not_said_for_how_long_it_may_be_silent_may_be_so_for_ever() -> None:
    watchdog = Watchdog()
    watchdog.heard({"is": "loading", "model": "m:1", "done": 0, "of": 1}, 0.0)

    assert watchdog.bites_at_s is None
    assert watchdog.bites(1e9) == ""


def test_a_batch_may_take_its_whole_time_and_no_longer() -> None:
    watchdog = Watchdog()

    watchdog.heard(line("m:1", busy_s=30.0, limit_s=30.0), 100.0)
    assert watchdog.bites(100.0) == ""

    watchdog.heard(line("m:1", busy_s=31.0, limit_s=30.0), 101.0)
    assert "model 'm:1' had run one batch for 31 s, and its timeout is 30 s" in watchdog.bites(101.0)


def test_silence_is_allowed_for_as_long_as_the_slowest_of_its_models_may_hold_the_interpreter() -> None:
    watchdog = Watchdog()
    # It ran a quick model when it spoke last, and may have begun to run the slow one since.
    watchdog.heard(line("quick:1", busy_s=1.0, limit_s=2.0, longest_s=60.0), 100.0)

    assert watchdog.bites_at_s == 160.0 + SILENT_S
    assert watchdog.bites(159.9 + SILENT_S) == ""
    assert "it has said nothing for 90 s, when it ran model 'quick:1'" in watchdog.bites(160.0 + SILENT_S)


def test_any_line_ends_a_silence() -> None:
    watchdog = Watchdog()
    watchdog.heard(line(), 100.0)
    watchdog.heard({"is": "whatever"}, 150.0)

    assert watchdog.bites_at_s == 210.0 + SILENT_S


def test_a_child_that_says_so_may_be_silent_without_end() -> None:
    watchdog = Watchdog()
    watchdog.heard(line(), 100.0)
    watchdog.heard(line(longest_s=None), 101.0)

    assert watchdog.bites_at_s is None


def test_a_silence_in_which_nobody_could_listen_counts_for_nothing() -> None:
    watchdog = Watchdog()
    watchdog.heard(line(), 100.0)

    watchdog.forgive(1000.0)

    assert watchdog.bites(1000.0) == ""
    assert watchdog.bites_at_s == 1060.0 + SILENT_S
