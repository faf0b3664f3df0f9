"""One place for a child, through its lives."""

from __future__ import annotations

import base64

import msgpack
import pytest

from common.backoff import Backoff
from inference_worker.processes.exitcodes import Exit
from inference_worker.supervision.child import child_environment, parse_lines
from inference_worker.supervision.events import Exited, Loading, Ready, Started
from inference_worker.supervision.placement import place
from inference_worker.supervision.restarts import FENCE_S, Restarts
from inference_worker.supervision.slot import ChildPlan, Slot

RUNS = {"is": "stats", "running": "echo:1", "busy_ms": 0, "limit_s": 1.0}
READY = {"is": "ready", "models": {"echo:1": base64.b64encode(b"data").decode()}, "import_s": 1.5, "load_s": 0.5}


@pytest.fixture
def slot():
    (placement,) = place("cpu", 1, [0, 1], [])
    return Slot(ChildPlan("pool", ("models",), placement), "host-77", "host", Restarts(Backoff(1.0, 1.0)))


def described(slot):
    return msgpack.unpackb(slot.description())


def test_each_generation_takes_work_under_a_name_of_its_own(slot):
    names = []
    for _ in range(3):
        names.append(slot.consumer)
        slot.started(1, 0.0, 0)
        slot.exited(1, "", 1.0, stopping=False)

    assert names == ["host-77-0-0", "host-77-0-1", "host-77-0-2"]


def test_status_lines_become_events_and_states(slot):
    assert (slot.waits, slot.state) == (True, "waiting to start")
    assert slot.started(99, 0.0, 0) == Started(0, "pool", "cpu", 99)
    assert slot.state == "starting"
    assert slot.heard({"is": "loading", "model": "echo:1", "done": 0, "of": 1}, 0.0, 5) == Loading(0, "echo:1", 0, 1)
    assert slot.state == "loading"
    assert slot.heard(READY, 0.0, 6) == Ready(0, "pool", ("echo:1",), 1.5, 0.5, 0.0)
    assert (slot.state, slot.models) == ("ready", {"echo:1": b"data"})


def test_only_a_child_that_was_ready_holds_work(slot):
    slot.started(99, 0.0, 0)
    assert not slot.holds_work

    slot.heard(READY, 0.0, 6)
    assert slot.holds_work


def test_statistics_and_the_time_of_the_last_line_are_described(slot):
    slot.started(99, 0.0, 1000)
    slot.heard(READY, 0.0, 2000)
    slot.heard({"is": "stats", "batches": 3, "rows": 40, "failed": 1}, 0.0, 3000)

    said = described(slot)

    assert (said["batches"], said["rows"], said["failed"]) == (3, 40, 1)
    assert (said["started_ms"], said["heard_ms"]) == (1000, 3000)
    assert (said["host"], said["pid"], said["device"], said["models"]) == ("host", 99, "cpu", ["echo:1"])


def test_a_new_life_starts_with_no_models_and_no_statistics(slot):
    slot.started(99, 0.0, 0)
    slot.heard(READY, 0.0, 0)
    slot.heard({"is": "stats", "batches": 3, "rows": 40}, 0.0, 0)

    slot.exited(-9, "", 1.0, stopping=False)

    assert slot.models == {}
    assert (described(slot)["batches"], described(slot)["restarts"]) == (0, 1)


def test_a_status_line_of_a_kind_that_is_not_known_is_passed_over(slot):
    slot.started(99, 0.0, 0)

    assert slot.heard({"is": "singing"}, 0.0, 0) is None
    assert slot.heard({}, 0.0, 0) is None


def test_a_crash_is_restarted_after_the_wait_and_says_what_the_child_said(slot):
    slot.started(99, 100.0, 0)
    slot.heard({"is": "failed", "error": "out of memory"}, 0.0, 0)

    event = slot.exited(1, "", 101.0, stopping=False)

    assert event == Exited(0, "pool", 1, "out of memory", event.will_restart_in_s, False)
    assert 0.5 <= event.will_restart_in_s <= 1.0
    assert slot.start_at_s == 101.0 + event.will_restart_in_s


@pytest.mark.parametrize(
    ("code", "told", "why"),
    [
        (9, [{"is": "loading", "model": "echo:1", "done": 0, "of": 1}], "while it loaded 'echo:1'"),
        (9, [{"is": "loading", "model": "echo:1", "done": 0, "of": 1}, READY], ""),
        (9, [READY, RUNS], "last heard of when it ran 'echo:1'"),
        (-9, [READY], "killed from outside, as the system does for want of memory"),
        (0, [READY, RUNS], ""),
    ],
)
def test_a_child_that_says_nothing_at_its_end_is_known_by_what_it_did(slot, code, told, why):
    slot.started(99, 0.0, 0)
    for line in told:
        slot.heard(line, 0.0, 0)

    assert slot.exited(code, "", 1.0, stopping=False).error == why
    assert described(slot)["error"] == why


def test_of_a_child_that_the_supervisor_has_ended_nothing_is_guessed(slot):
    slot.started(99, 0.0, 0)
    slot.heard(READY, 0.0, 0)

    assert slot.exited(-9, "", 1.0, stopping=True).error == ""


@pytest.mark.parametrize(("code", "stopping"), [(Exit.CONFIG, False), (0, True), (-9, True)])
def test_a_child_with_a_wrong_configuration_or_of_a_stopping_supervisor_is_not_restarted(slot, code, stopping):
    slot.started(99, 0.0, 0)

    event = slot.exited(code, "", 1.0, stopping=stopping)

    assert event.will_restart_in_s is None
    assert slot.ended


def test_a_child_whose_device_is_lost_is_fenced_off_and_tried_again_after_minutes(slot):
    slot.started(99, 100.0, 0)
    slot.heard({"is": "failed", "error": "device is lost"}, 100.5, 0)

    event = slot.exited(Exit.UNAVAILABLE, "", 101.0, stopping=False)

    assert event.will_restart_in_s == FENCE_S
    assert (slot.state, slot.waits, slot.start_at_s) == ("fenced off", True, 101.0 + FENCE_S)
    assert (described(slot)["state"], described(slot)["error"]) == ("fenced off", "device is lost")


def test_status_lines_are_read_when_they_are_whole():
    assert parse_lines(b'{"is":"a"}\n{"is":') == ([{"is": "a"}], b'{"is":')
    assert parse_lines(b'{"is":"b"}\n') == ([{"is": "b"}], b"")


@pytest.mark.parametrize("line", [b"Segmentation fault\n", b"[1]\n", b"\xff\n"])
def test_what_is_no_status_line_is_logged_and_passed_over(caplog, line):
    assert parse_lines(line + b'{"is":"a"}\n') == ([{"is": "a"}], b"")
    assert "no JSON map" in caplog.text


def test_a_child_inherits_the_environment_but_the_brokers_url():
    (placement,) = place("cpu", 1, [0], [])

    environ = child_environment(placement, 7, {"HOME": "/home", "INFERENCE_WORKER_BROKER": "redis://:secret@host"})

    assert environ["HOME"] == "/home"
    assert environ["INFERENCE_WORKER_STATUS_FD"] == "7"
    assert "INFERENCE_WORKER_BROKER" not in environ
