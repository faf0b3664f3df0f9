"""What operators have set in a pool, as a supervisor last saw it: a Redis that has lost it says nothing of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Set

#: What workers themselves keep among a pool's limits: the bound that `--max-backlog` sets, and the models' generation.
_OURS = frozenset({"backlog", "generation"})


class Settled:
    """Told what is there; tells what was there before the server was emptied."""

    def __init__(self) -> None:
        self._seen: tuple[str, ...] = ()

    def see(self, traffic: Collection[str], limits: Set[str], unloaded: Collection[str], knows_us: bool) -> str:
        """What has gone, in words; empty where nothing has. `knows_us`: the server still has one of our leases."""
        found = {"aliases and splits": traffic, "limits": limits - _OURS, "what was unloaded": unloaded}
        before, self._seen = self._seen, tuple(what for what, names in found.items() if names)
        # An operator may clear what he has set. Only an emptied server lacks that and us.
        return "" if knows_us or self._seen else ", ".join(before)
