"""One chaos run: start everything, strike by the schedule until all is answered, judge."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.faults import Striker
from tests.chaos.fleet import POOL, Fleet, Share
from tests.chaos.schedule import Fault, poisons, strikes
from tests.chaos.verdict import Verdict, judge, unfinished
from tests.support.deployments import Deployment
from tests.support.leaks import leaked_keys
from tests.support.waiting import wait_until

POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a run is. `per_second` counts requests of all callers together."""

    total: int
    callers: int
    hosts: int
    procs: int
    per_second: float
    fault_every_s: float
    finish_within_s: float

    @property
    def lasting_s(self) -> float:
        return self.total / self.per_second


SHORT = Plan(3000, callers=5, hosts=3, procs=2, per_second=75, fault_every_s=2.5, finish_within_s=120)
LONG = Plan(20_000, callers=5, hosts=4, procs=2, per_second=200, fault_every_s=2.0, finish_within_s=300)


def run(plan: Plan, seed: int, deploy: Callable[[], Deployment], folder: Path, say: Callable[[str], None]) -> Verdict:
    """Raises AssertionError where something is left over; the verdict tells of the answers."""
    shares = _shares(plan, folder)
    with deploy() as broker:
        fleet = Fleet(broker, folder, plan.hosts, plan.procs)
        striker = Striker(fleet)
        try:
            fleet.call(shares, plan.per_second / plan.callers, seed, plan.total)
            _strike_until_answered(fleet, striker, plan, seed, say)
            client = broker.primary().client
            wait_until(lambda: not unfinished(client, POOL), "the streams are empty", 30)
            assert leaked_keys(client, POOL) == [], "keys without a TTL that are not permanent"
        except BaseException as error:
            error.add_note(f"seed {seed}; the last that its processes printed:\n{fleet.log[-6000:]}")
            raise
        finally:
            striker.resume_all()
            fleet.stop()
    return judge([share.file for share in shares], fleet.notes, poisons(seed, plan.total), plan.total)


def _shares(plan: Plan, folder: Path) -> list[Share]:
    size = plan.total // plan.callers
    return [Share(folder / f"answers{number}", number * size, (number + 1) * size) for number in range(plan.callers)]


def _strike_until_answered(fleet: Fleet, striker: Striker, plan: Plan, seed: int, say: Callable[[str], None]) -> None:
    without = frozenset[Fault]() if fleet.broker.can_move else frozenset([Fault.MOVE_POOL])
    waiting = strikes(seed, plan.lasting_s, plan.fault_every_s, without)
    started = time.monotonic()
    while not fleet.finished():
        now = time.monotonic() - started
        assert now < plan.lasting_s + plan.finish_within_s, f"not all is answered after {now:.0f} s"
        while waiting and waiting[0].at_s <= now:
            strike = waiting.pop(0)
            say(f"{now:6.1f} s  {strike.fault}")
            striker.strike(strike)
        striker.resume()
        time.sleep(POLL_S)
