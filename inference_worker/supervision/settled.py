"""What operators have set in a pool, as a supervisor last saw it: a Redis that has lost it says nothing of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import NamedTuple

#: What workers themselves keep among a pool's limits: the bound that `--max-backlog` sets, and the models' generation.
_OURS = frozenset({"backlog", "generation"})


class Lost(NamedTuple):
    """What an emptied server lacks: `told` in words, for the operator to set again, and what can be written again.

    `unloaded`: `name:version` -> when, in ms. Who starts later would serve these. Both are empty where nothing has
    gone.
    """

    told: str
    unloaded: Mapping[str, bytes]


class Settled:
    """Told what is there; tells what was there before the server was emptied."""

    def __init__(self) -> None:
        self._seen: tuple[str, ...] = ()
        self._unloaded: Mapping[str, bytes] = {}

    def see(self, traffic: Collection[str], limits: Set[str], unloaded: Mapping[str, bytes], knows_us: bool) -> Lost:
        """What has gone since the last look. `knows_us`: the server still has one of our leases."""
        found = {"aliases and splits": traffic, "limits": limits - _OURS}
        before, held_back = self._seen, self._unloaded
        self._seen, self._unloaded = tuple(what for what, names in found.items() if names), unloaded
        # An operator may clear what he has set. Only an emptied server lacks that and us.
        if knows_us or self._seen:
            return Lost("", {})
        # Another supervisor may have been quicker.
        self._unloaded = unloaded or held_back
        return Lost(", ".join(before), {} if unloaded else held_back)
