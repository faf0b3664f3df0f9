"""A limit on concurrency that finds itself by measured latency. Pure.

Gradient2 of Netflix's concurrency-limits: the latency of late against that of long. As long as they are alike the
limit grows by its square root (a queue that long is room to learn in); where the late one is higher by more than
the tolerance, requests queue somewhere behind, and the limit shrinks in proportion. A refusal from behind cuts it
by a tenth at once (AIMD, as TCP and Clipper do).
"""

from __future__ import annotations

import math

TOLERANCE = 1.5
#: Samples that one decision rests on.
WINDOW = 100
#: How fast the long-run latency follows: about so many windows.
LONG_WINDOWS = 60
SMOOTHING = 0.2
BACKOFF = 0.9


class AdaptiveLimit:
    """`limit` is the number of requests to let in, between `least` and `most`; it begins at `start`."""

    def __init__(self, start: int, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self._limit = float(start)
        self._long_s = 0.0
        self._sum_s = 0.0
        self._count = 0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def finished(self, latency_s: float, under_way: int) -> bool:
        """One request took so long, while `under_way` were let in. True where the limit may have moved."""
        self._sum_s += latency_s
        self._count += 1
        if self._count < WINDOW:
            return False
        short_s, self._sum_s, self._count = self._sum_s / self._count, 0.0, 0
        self._learn(short_s)
        # A door that is half empty tells nothing of what a fuller one would do.
        if under_way >= self._limit / 2:
            self._move(short_s)
        return True

    def refused(self) -> None:
        """What stands behind the door is overloaded."""
        self._set(self._limit * BACKOFF)

    def _learn(self, short_s: float) -> None:
        if not self._long_s:
            self._long_s = short_s
        self._long_s += (short_s - self._long_s) / LONG_WINDOWS
        if self._long_s > 2 * short_s:
            self._long_s *= 0.95  # After an overload has passed: come down sooner than the average would.

    def _move(self, short_s: float) -> None:
        gradient = max(0.5, min(1.0, TOLERANCE * self._long_s / short_s)) if short_s > 0 else 1.0
        wanted = self._limit * gradient + math.sqrt(self._limit)
        self._set(self._limit + SMOOTHING * (wanted - self._limit))

    def _set(self, limit: float) -> None:
        self._limit = max(float(self._least), min(float(self._most), limit))
