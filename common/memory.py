"""How full Redis is, from INFO's answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

#: From this share of its limit on a large request may find no room: what it brings is counted before it is refused.
NEAR = 0.95
#: Below this share there is room again; between the two nothing is said, or it would be said over and over.
ROOM = 0.90


class Level(IntEnum):
    """How far it has come."""

    ROOM = 0
    NEARLY_FULL = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class Memory:
    """What Redis holds, and its maxmemory: bytes, `limit` 0 where there is none. `refuses`: it evicts nothing."""

    used: int
    limit: int
    refuses: bool = True

    @property
    def level(self) -> Level:
        """A Redis that evicts is never full: it throws away instead."""
        if not self.limit or not self.refuses or self.used < NEAR * self.limit:
            return Level.ROOM
        return Level.FULL if self.used >= self.limit else Level.NEARLY_FULL

    @property
    def has_room(self) -> bool:
        return self.level is Level.ROOM and (not self.limit or self.used < ROOM * self.limit)

    def __str__(self) -> str:
        """As in `198 of 200 MB: full, new requests are refused`."""
        said = ("", ": nearly full, new requests may be refused", ": full, new requests are refused")[self.level]
        unit, name = (1e6, "MB") if self.limit < 10e9 else (1e9, "GB")
        return f"{self.used / unit:.0f} of {self.limit / unit:.0f} {name}{said}"


def read_memory(info: Mapping[str, Any]) -> Memory:
    """From the section `memory`; of a cluster it is that of one node."""
    # What replicas and the append-only file have still to be sent is no part of what maxmemory bounds.
    used = int(info.get("used_memory", 0)) - int(info.get("mem_not_counted_for_evict", 0))
    return Memory(used, int(info.get("maxmemory", 0)), info.get("maxmemory_policy", "noeviction") == "noeviction")


class Fullness:
    """What has been said of it: each level once, until there is room again."""

    def __init__(self) -> None:
        self._said = Level.ROOM

    def worse(self, memory: Memory) -> bool:
        """Whether it has come further than was said."""
        worse = memory.level > self._said
        self._said = max(self._said, memory.level)
        return worse

    def over(self, memory: Memory) -> bool:
        """Whether there is room again; true once."""
        over = self._said > Level.ROOM and memory.has_room
        if over:
            self._said = Level.ROOM
        return over
