"""Each fault of the schedule, done to a fleet."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from tests.chaos.fleet import LEASE_S, Fleet
from tests.chaos.schedule import Fault, Strike

#: A host that stands still for so long has lost its lease, and its work.
PAUSE_S = 2.0 * LEASE_S
#: Not long enough for another to take over.
FREEZE_S = 1.0


class Striker:
    """Strikes, and sets going again what only stands still: call `resume` often, and `resume_all` at the end."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._stopped: list[tuple[float, list[int]]] = []

    def strike(self, strike: Strike) -> None:
        fleet = self._fleet
        host = fleet.hosts[strike.pick % len(fleet.hosts)]
        match strike.fault:
            case Fault.KILL_WORKER:
                workers = fleet.workers(host)
                if workers:
                    _signal(workers[strike.pick % len(workers)], signal.SIGKILL)
            case Fault.PAUSE_HOST:
                self._stop([host.pid, *fleet.workers(host)], PAUSE_S)
            case Fault.KILL_HOST:
                fleet.replace_host(host, signal.SIGKILL)
            case Fault.DRAIN_HOST:
                fleet.replace_host(host, signal.SIGTERM)
            case Fault.KILL_CLIENT:
                fleet.replace_caller([*fleet.callers][strike.pick % len(fleet.callers)])
            case Fault.END_REDIS:
                self.resume_all()
                fleet.broker.lose_primary(signal.SIGTERM)
            case Fault.KILL_REDIS:
                self.resume_all()
                fleet.broker.lose_primary(signal.SIGKILL)
            case Fault.FREEZE_REDIS:
                self._stop([fleet.broker.primary().process.pid], FREEZE_S)
            case Fault.MOVE_POOL:
                fleet.broker.move()
            case Fault.DROP_CONNECTIONS:
                fleet.drop_connections()

    def resume(self) -> None:
        now = time.monotonic()
        for until, pids in self._stopped:
            if until <= now:
                _continue(pids)
        self._stopped = [(until, pids) for until, pids in self._stopped if until > now]

    def resume_all(self) -> None:
        for _, pids in self._stopped:
            _continue(pids)
        self._stopped = []

    def _stop(self, pids: list[int], seconds: float) -> None:
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        self._stopped.append((time.monotonic() + seconds, pids))


def _continue(pids: list[int]) -> None:
    for pid in pids:
        _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
