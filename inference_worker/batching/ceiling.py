"""How large a batch may become, by what happened to those before it. Pure.

Additive increase, multiplicative decrease, as TCP does it and as Clipper (Crankshaw et al., NSDI 2017) does it for
batches: a tenth off where a batch was slower than the model's target, a little more where the largest allowed was not.
Out of memory halves, and the size that failed is remembered: growth stops below it, and it is forgotten slowly, since
whoever else used the memory may have gone.
"""

from __future__ import annotations

from math import inf

#: Off the ceiling where a batch was too slow: Clipper's 10 %.
DECREASE = 0.9
#: Of the largest size that was ever allowed, so much more after each batch that reached the ceiling in time.
INCREASE = 1 / 64
#: The remembered failure moves up by so much with each batch that ran just below it: about 700 double it.
FORGET = 1 / 1000
#: A batch of this share of the ceiling has reached it: the next part would often not have fitted.
REACHED = 0.75


class Ceiling:
    """The largest size of a batch in elements, 1 at least; without bound until something was too large."""

    def __init__(self) -> None:
        self.elements = inf
        self._failed = inf
        self._top = 0.0

    def ran(self, size: int, seconds: float, target_s: float | None) -> None:
        """A batch of `size` elements took `seconds`."""
        if target_s is not None and seconds > target_s:
            self._lower(size * DECREASE)
        elif size >= REACHED * self.elements:
            self._raise()

    def out_of_memory(self, size: int) -> None:
        """A batch of `size` elements did not fit."""
        self._failed = min(self._failed, size)
        self._lower(size / 2)

    def _lower(self, elements: float) -> None:
        self._top = max(self._top, elements)
        self.elements = max(1.0, min(self.elements, elements))

    def _raise(self) -> None:
        self._failed *= 1 + FORGET
        self.elements = max(self.elements, min(self.elements + INCREASE * self._top, self._failed * DECREASE))
