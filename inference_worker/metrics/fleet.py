"""What a supervisor knows of its processes, as metrics: their states, how they ended, what they say of themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from threading import Lock

from common.metrics.declared import (
    BROKER_LOSSES,
    EVICTIONS,
    EXITS,
    MODEL_BYTES,
    PARKED,
    PROCESSES,
    Metric,
    Sample,
    sample,
)
from inference_worker.processes.exitcodes import Exit
from inference_worker.supervision.events import BrokerLost, Event, Exited
from inference_worker.supervision.slot import Slot, State

#: Why a process ended. Alerts watch some of these: each is there from the start, at 0, or its first step is lost.
STOPPED, CONFIG, DEVICE, KILLED, FAILED = REASONS = ("stopped", "config", "device", "killed", "failed")

#: What children say of themselves once a second, by its name there.
_SAID: tuple[tuple[Metric, str], ...] = (
    (MODEL_BYTES, "model_bytes"),
    (PARKED, "waiting"),
    (EVICTIONS, "evictions"),
)


class FleetMetrics:
    """A source of samples about `slots`. `hear` gets the supervisor's events, from its thread."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._lock = Lock()
        self._exits = Counter({(slot.index, reason): 0 for slot in slots for reason in REASONS})
        self._losses = Counter({slot.plan.pool: 0 for slot in slots})

    def hear(self, event: Event) -> None:
        with self._lock:
            match event:
                case Exited(worker, _, code, _, restart_s, _):
                    self._exits[worker, reason_of(code, restart_s is not None)] += 1
                case BrokerLost(pool):
                    self._losses[pool] += 1

    def __call__(self) -> list[Sample]:
        with self._lock:
            return [*self._processes(), *self._ends(), *self._said()]

    def _processes(self) -> Iterator[Sample]:
        counts = Counter((*_place(slot), slot.state) for slot in self._slots)
        for pool, device in dict.fromkeys(map(_place, self._slots)):
            for state in State:
                yield sample(PROCESSES, counts[pool, device, state], pool, device, state.value)

    def _ends(self) -> Iterator[Sample]:
        places = {slot.index: _place(slot) for slot in self._slots}
        ends: Counter[tuple[str, str, str]] = Counter()
        for (index, reason), count in self._exits.items():
            ends[(*places[index], reason)] += count
        for labels, count in ends.items():
            yield sample(EXITS, count, *labels)
        for pool, count in self._losses.items():
            yield sample(BROKER_LOSSES, count, pool)

    def _said(self) -> Iterator[Sample]:
        for slot in self._slots:
            for metric, name in _SAID:
                if name in slot.told:
                    yield sample(metric, slot.told[name], *_place(slot), str(slot.index))


def reason_of(code: int, comes_again: bool) -> str:
    """Why a process ended with `code`; `comes_again`: nobody wanted that."""
    if code == Exit.CONFIG:
        return CONFIG
    if not comes_again:
        return STOPPED
    if code == Exit.UNAVAILABLE:
        return DEVICE
    return KILLED if code < 0 else FAILED


def _place(slot: Slot) -> tuple[str, str]:
    return slot.plan.pool, slot.plan.placement.device
