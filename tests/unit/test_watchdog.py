"""When a child counts as one that hangs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any

import pytest

from inference_worker.supervision.watchdog import LOOK_AFTER_S, LOOK_EVERY_S, SILENT_S, STILL_S, Sight, Watchdog


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


def test_a_child_that_says_nothing_is_looked_at_and_again_each_second() -> None:
    watchdog = Watchdog()
    watchdog.heard(line(), 100.0)
    assert watchdog.look_at_s == 100.0 + LOOK_AFTER_S

    watchdog.saw(Sight(stopped=False, ticks=1), 102.0)

    assert watchdog.look_at_s == 102.0 + LOOK_EVERY_S


def looked_at(watchdog: Watchdog, sights: Iterable[Sight | None], from_s: float = 102.0) -> float:
    """A look each second; when the last one was."""
    now_s = from_s
    for now_s, sight in zip(count(from_s, LOOK_EVERY_S), sights, strict=False):
        watchdog.saw(sight, now_s)
    return now_s


STOPPED = Sight(stopped=True, ticks=7)
STILL = Sight(stopped=False, ticks=7)


@pytest.mark.parametrize("running", ["", "m:1"])
def test_a_child_that_a_signal_has_stopped_is_given_up_within_seconds_whatever_it_runs(running: str) -> None:
    watchdog = Watchdog()
    watchdog.heard(line(running, limit_s=300.0, longest_s=300.0), 100.0)

    now_s = looked_at(watchdog, [STOPPED] * 5)
    assert watchdog.bites(now_s) == ""

    assert "a signal had stopped it for 7 s" in watchdog.bites(looked_at(watchdog, [STOPPED], now_s + 1))


def test_a_child_that_is_stopped_for_a_moment_or_still_loads_while_it_is_not_is_left_alone() -> None:
    watchdog = Watchdog()

    now_s = looked_at(watchdog, [STOPPED, STOPPED, STILL] * 20)

    assert watchdog.bites(now_s) == ""


def test_a_child_that_runs_nothing_and_uses_no_processor_is_given_up_long_before_its_models_timeouts() -> None:
    watchdog = Watchdog()
    watchdog.heard(line(longest_s=300.0), 100.0)

    now_s = looked_at(watchdog, [STILL] * int(STILL_S))
    assert watchdog.bites(now_s) == ""

    assert "ran no model and used no processor" in watchdog.bites(looked_at(watchdog, [STILL], now_s + 1))


@pytest.mark.parametrize(
    ("running", "sights"),
    [
        ("m:1", [STILL] * 60),  # it waits for its device
        ("", [Sight(False, ticks) for ticks in range(60)]),  # native code computes, and holds the interpreter's lock
        ("", [None] * 60),  # not Linux
    ],
)
def test_a_silent_child_that_runs_a_model_or_computes_or_cannot_be_seen_has_its_models_time(
    running: str, sights: list[Sight | None]
) -> None:
    watchdog = Watchdog()
    watchdog.heard(line(running, limit_s=300.0, longest_s=300.0), 100.0)

    assert watchdog.bites(looked_at(watchdog, sights)) == ""


def test_a_word_or_a_pause_of_the_watcher_ends_what_was_seen() -> None:
    watchdog = Watchdog()
    watchdog.heard(line(longest_s=300.0), 100.0)
    for end in (lambda now_s: watchdog.heard(line(longest_s=300.0), now_s), watchdog.forgive):
        now_s = looked_at(watchdog, [Sight(stopped=True, ticks=7)] * 5)

        end(now_s)

        assert watchdog.bites(now_s + 1.0) == ""
