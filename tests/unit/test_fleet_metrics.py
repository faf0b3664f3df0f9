"""What a supervisor's events and places come to as metrics."""

from __future__ import annotations

import pytest

from inference_worker.metrics.fleet import FleetMetrics, reason_of
from inference_worker.processes.exitcodes import Exit
from inference_worker.supervision.events import BrokerLost, Exited
from inference_worker.supervision.placement import place
from inference_worker.supervision.restarts import Restarts
from inference_worker.supervision.slot import ChildPlan, Slot


@pytest.mark.parametrize(
    ("code", "comes_again", "reason"),
    [
        (0, False, "stopped"),
        (-9, False, "stopped"),
        (0, True, "failed"),
        (-9, True, "killed"),
        (-11, True, "killed"),
        (Exit.BUG, True, "failed"),
        (Exit.UNAVAILABLE, True, "device"),
        (Exit.CONFIG, False, "config"),
        (Exit.CONFIG, True, "config"),
    ],
)
def test_why_a_process_ended(code: int, comes_again: bool, reason: str) -> None:
    assert reason_of(code, comes_again) == reason


def slots(count: int) -> list[Slot]:
    return [Slot(ChildPlan("p", (), one), "host-7", "host", Restarts()) for one in place("cpu", count, [0, 1], [])]


def told(metrics: FleetMetrics) -> dict[tuple[str, ...], float]:
    return {(one.metric.name.removeprefix("inference_worker_"), *one.labels): one.cells[0] for one in metrics()}


def test_ends_of_all_places_of_a_device_add_up_and_are_there_before_the_first() -> None:
    metrics = FleetMetrics(slots(2))
    assert told(metrics)["exits_total", "p", "cpu", "killed"] == 0

    for worker in (0, 1, 1):
        metrics.hear(Exited(worker, "p", -9, "", 0.5, False))
    metrics.hear(BrokerLost("p", "away"))

    found = told(metrics)
    assert found["exits_total", "p", "cpu", "killed"] == 3
    assert found["broker_losses_total", "p"] == 1


def test_places_are_counted_by_state_and_tell_what_their_children_say() -> None:
    first, second = places = slots(2)
    first.started(1, 0.0, 0)
    first.heard({"is": "stats", "model_bytes": 7, "waiting": 2, "evictions": 1}, 0.0, 0)

    found = told(FleetMetrics(places))

    assert (found["processes", "p", "cpu", "starting"], found["processes", "p", "cpu", second.state]) == (1, 1)
    assert found["model_bytes", "p", "cpu", "0"] == 7
    assert ("model_bytes", "p", "cpu", "1") not in found
