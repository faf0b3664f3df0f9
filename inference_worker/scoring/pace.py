"""How many chunks may be under way beside online traffic. Pure: what is seen of it is told, with the time."""

from __future__ import annotations

#: A job beside constant online load still hands in one chunk in so many seconds: it is slow, and never stands still.
LEAST_S = 2.0


class Pace:
    """Adds one chunk to the window whenever nobody online waits, up to `most`; none is added while somebody does."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._window = min(2, most)
        self._last_s = 0.0
        self.yields = False

    def seen(self, online: int) -> None:
        """`online`: unfinished requests of other priorities than ours, at this moment."""
        self.yields = online > 0
        self._window = max(1, self._window // 2) if online else min(self.most, self._window + 1)

    def allows(self, under_way: int, now_s: float) -> bool:
        """Whether one more may be handed in beside those under way."""
        if under_way >= self._window or (self.yields and now_s - self._last_s < LEAST_S):
            return False
        self._last_s = now_s
        return True
