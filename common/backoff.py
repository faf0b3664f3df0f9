"""How long to wait before the next try: doubling, with full jitter above half. Pure."""

from __future__ import annotations

import random


class Backoff:
    """`next()` gives seconds from `first_s` doubling up to `most_s`, each shortened by up to a half at random.

    The jitter keeps a fleet that lost its Redis from coming back all at once.
    """

    def __init__(self, first_s: float = 0.05, most_s: float = 2.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self.tries = 0

    def next(self) -> float:
        ceiling = min(self._most_s, self._first_s * 2.0 ** min(self.tries, 30))
        self.tries += 1
        return ceiling * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        self.tries = 0
