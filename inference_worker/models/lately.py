"""What happened how often in the last minutes. Pure."""

from __future__ import annotations

from collections import Counter, deque

#: What is older is forgotten.
WINDOW_S = 600.0
#: So many are remembered: a count stops there.
MOST = 10_000


class Lately:
    """Counts names by what happened to them."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, str]] = deque(maxlen=MOST)

    def add(self, name: str, now_s: float) -> None:
        self._seen.append((now_s, name))

    def counts(self, now_s: float) -> dict[str, int]:
        """Of the last ten minutes, the most frequent first."""
        while self._seen and self._seen[0][0] < now_s - WINDOW_S:
            self._seen.popleft()
        return dict(Counter(name for _, name in self._seen).most_common())
