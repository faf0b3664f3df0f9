"""From a seed to a plan: which requests are poison, and which fault strikes when. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

#: One request in so many is poison of some kind.
POISON_SHARE = 200


class Poison(StrEnum):
    """What a bad request does to the process that computes it."""

    RAISES = "raises"
    NOT_FINITE = "not finite"
    EXITS = "exits"
    CRASHES = "crashes"
    HANGS = "hangs"


#: Those that cost a process are rarer: each one does so `max_deliveries` times.
_POISONS = {Poison.RAISES: 12, Poison.NOT_FINITE: 4, Poison.EXITS: 2, Poison.CRASHES: 2, Poison.HANGS: 1}


class Fault(StrEnum):
    """What happens to the system from outside. A "host" is a supervisor with its workers."""

    KILL_WORKER = "kill a worker"
    PAUSE_HOST = "pause a host past its lease"
    KILL_HOST = "kill a supervisor"
    DRAIN_HOST = "drain a supervisor"
    KILL_CLIENT = "kill a client"
    END_REDIS = "end the primary Redis"
    KILL_REDIS = "kill the primary Redis"
    FREEZE_REDIS = "freeze the primary Redis"
    MOVE_POOL = "move the pool to another Redis"
    DROP_CONNECTIONS = "drop all connections"


_FAULTS = {
    Fault.KILL_WORKER: 8,
    Fault.PAUSE_HOST: 2,
    Fault.KILL_HOST: 3,
    Fault.DRAIN_HOST: 2,
    Fault.KILL_CLIENT: 3,
    Fault.END_REDIS: 1,
    Fault.KILL_REDIS: 1,
    Fault.FREEZE_REDIS: 1,
    Fault.MOVE_POOL: 1,
    Fault.DROP_CONNECTIONS: 2,
}


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault `at_s` seconds after the start. `pick` chooses among the targets that are there then."""

    at_s: float
    fault: Fault
    pick: int


def poisons(seed: int, total: int) -> dict[int, Poison]:
    """The bad ones among the requests 0 to `total` - 1."""
    random = Random(f"poison {seed}")
    chosen = random.sample(range(total), max(len(Poison), total // POISON_SHARE))
    # Each kind once at least, the rest by weight.
    kinds = [*Poison, *random.choices([*_POISONS], [*_POISONS.values()], k=len(chosen))]
    return dict(zip(chosen, kinds, strict=False))


def strikes(seed: int, lasting_s: float, every_s: float, without: frozenset[Fault] = frozenset()) -> list[Strike]:
    """Faults over `lasting_s` seconds, one each `every_s` on average, each kind once before any comes by weight."""
    random = Random(f"faults {seed}")
    times = [(number + random.random()) * every_s for number in range(1, int(lasting_s / every_s))]
    possible = {fault: weight for fault, weight in _FAULTS.items() if fault not in without}
    first = random.sample([*possible], len(possible))
    kinds = first + random.choices([*possible], [*possible.values()], k=len(times))
    return [Strike(at_s, kind, random.randrange(1 << 16)) for at_s, kind in zip(times, kinds, strict=False)]
