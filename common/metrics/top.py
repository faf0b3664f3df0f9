"""Which names of many are shown by themselves; the others together are OTHER. Pure.

Prometheus takes a counter that falls for one that began anew. So what OTHER counts only grows: what a name adds while
it is not shown. A name that comes to be shown brings its whole count: what grows from then on is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nlargest

from common.metrics.declared import OTHER

MOST = 20
#: How much of a name's weight is left from one look to the next.
_KEPT = 0.8
#: A name that is shown gives way only to one that weighs so many times more: names that come and go help nobody.
_STAYS = 2.0


class Top:
    """Of growing counts by name, those of the `most` that grew most of late."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._last: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._shown: frozenset[str] = frozenset()
        self._other = 0.0

    def look(self, counts: Mapping[str, float]) -> dict[str, float]:
        """What to show of these."""
        grown = {name: count - self._last.get(name, 0.0) for name, count in counts.items()}
        self._last = dict(counts)
        self._weights = {name: self._weights.get(name, 0.0) * _KEPT + growth for name, growth in grown.items()}
        self._shown = frozenset(nlargest(self._most, self._weights, key=self._weight))
        self._other += sum(growth for name, growth in grown.items() if name not in self._shown or name == OTHER)
        found = {name: counts[name] for name in sorted(self._shown) if name != OTHER}
        return found | {OTHER: self._other} if self._other else found

    def _weight(self, name: str) -> float:
        return self._weights[name] * (_STAYS if name in self._shown else 1.0)


def top(counts: Mapping[str, float], most: int = MOST) -> dict[str, float]:
    """Of counts that may fall: the largest, and the sum of all others."""
    shown = {name for name in nlargest(most, counts, key=counts.__getitem__) if name != OTHER}
    rest = sum(count for name, count in counts.items() if name not in shown)
    return {name: counts[name] for name in sorted(shown)} | ({OTHER: rest} if rest else {})
