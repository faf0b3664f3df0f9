"""Which models go so that another one fits into memory. Pure: no clock, no thread, no model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.errors import ModelUnavailable
from inference_worker.devices.memory import show_bytes
from inference_worker.models.registry import Key


class NeverFitsError(ModelUnavailable):
    """A model needs more than the whole budget: waiting does not help."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A model in memory, and what speaks for or against its going. `used_s`: when it was asked for last.

    `stays`: it is pinned, or what is to be loaded replaces it. `awaited`: requests that waited for it have not been
    looked at yet. `busy`: it has requests that are not answered yet.
    """

    key: Key
    size: int
    used_s: float
    stays: bool = False
    awaited: bool = False
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    """`limit` bytes for all models of a process together."""

    limit: int

    def victims(self, what: str, need: int, residents: Sequence[Resident]) -> list[Key]:
        """Those that must go so that `need` bytes more fit: idle ones before busy ones, the least recently used first.

        They may not suffice for now where some are awaited. Raises ModelUnavailable, with the figures, where `what`
        does not fit even beside those alone that stay, and NeverFitsError where it does not fit alone.
        """
        if need > self.limit:
            raise NeverFitsError(
                f"{what} needs {show_bytes(need)}: more than the whole memory budget of {show_bytes(self.limit)}; "
                "raise --memory-budget"
            )
        fixed = sum(one.size for one in residents if one.stays)
        if fixed + need > self.limit:
            raise ModelUnavailable(self._refusal(what, need, fixed))
        over = sum(one.size for one in residents) + need - self.limit
        found: list[Key] = []
        for one in sorted(_evictable(residents), key=lambda one: (one.busy, one.used_s)):
            if over <= 0:
                break
            found.append(one.key)
            over -= one.size
        return found

    def _refusal(self, what: str, need: int, fixed: int) -> str:
        beside = f", of which models that stay take {show_bytes(fixed)}" if fixed else ""
        return (
            f"{what} needs {show_bytes(need)} and can have {show_bytes(max(0, self.limit - fixed))}: "
            f"the memory budget is {show_bytes(self.limit)}{beside}; raise --memory-budget, or unload something first"
        )


def _evictable(residents: Iterable[Resident]) -> Iterable[Resident]:
    return (one for one in residents if not one.stays and not one.awaited)
