"""How the places of one take are shared between the priorities. Pure."""

from __future__ import annotations

#: Of each 16 places under a flood, high has at least 11, normal 4 and low 1; what one leaves goes to the others.
WEIGHTS = (11, 4, 1)
_CYCLE = sum(WEIGHTS)


class Shares:
    """Splits any number of places so that over time each priority gets its weight.

    Smooth weighted round robin (as in nginx's upstream balancing): single places alternate too,
    so a worker that takes one entry at a time starves no priority.
    """

    def __init__(self) -> None:
        self._credit = [0, 0, 0]

    def split(self, places: int) -> tuple[int, int, int]:
        """(high, normal, low), together `places`."""
        whole, rest = divmod(places, _CYCLE)
        shares = [whole * weight for weight in WEIGHTS]
        for _ in range(rest):
            shares[self._next()] += 1
        return shares[0], shares[1], shares[2]

    def _next(self) -> int:
        for priority, weight in enumerate(WEIGHTS):
            self._credit[priority] += weight
        chosen = max(range(3), key=self._credit.__getitem__)
        self._credit[chosen] -= _CYCLE
        return chosen
