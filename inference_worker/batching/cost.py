"""What a batch will take: seconds by its size in elements, learned from the batches that ran. Pure.

A line through a small table, one cell for each power of two. The line, seconds = fixed + element * size, says what
a part costs beside others and by itself. The table says where the device leaves the line: a batch that fills the
caches is slower than it, one that fills a GPU faster. Neither alone will do: on the line larger is always better,
and the table knows nothing of a size that was never tried.

Least squares for batch latency is Clipper's idea (Crankshaw et al., NSDI 2017); here it is weighted by 1/seconds, so
that a small batch counts as much as a large one.
"""

from __future__ import annotations

from math import frexp, inf

#: Sizes up to 2 ** 40 elements.
CELLS = 42
#: A batch counts for so much of its cell's mean in the long run: about the last ten count.
CELL_WEIGHT = 0.1
#: The going rate follows about the last 30 batches.
RATE_WEIGHT = 1 / 12
#: A batch that took so many times as long as its cell's mean counts as this: something else held the device up.
OUTLIER = 3.0
#: As long as batches of one size alone are known, a call is thought to cost as much as so many elements. On CPUs it is
#: about that (25 to 50, MiniLM); on GPUs some thousands, which trials find within some dozen batches. Too small a prior
#: costs less: a first batch of all that waits, padded to the longest, may take seconds.
PRIOR_FIXED = 64
#: What an element is thought to take before any batch ran.
UNKNOWN_S = 1e-9
#: Of the first batches each one moves the line, later every so many.
FIT_EACH_UP_TO, FIT_EVERY = 100, 8
#: A size that was tried so often is known; until all near ones are, every fourth batch may try one.
KNOWN_AFTER = 2
TRIAL_EVERY = 4
#: Of batches as quick as this there are many: once their size is known well, one of so many is learned from.
QUICK_S, QUICK_EVERY, QUICK_AFTER = 0.001, 8, 100
#: A known size is tried again after so many batches without it and without a trial: the device's other users may have
#: come or gone.
STALE_AFTER = 500


class CostModel:
    """One model's batches of one signature. An element is one of a padded row, or a row where nothing is padded.

    Before one has run the two costs have a ratio but no scale: nothing that it tells then is near any deadline.
    """

    def __init__(self) -> None:
        self.element_s = UNKNOWN_S
        self.fixed_s = PRIOR_FIXED * UNKNOWN_S
        #: Seconds that one useful element costs at present, its share of padding and fixed costs included.
        self.rate_s = inf
        self._batches = 0
        self._tried_at = 0
        self._counts = [0] * CELLS
        self._sizes = [0.0] * CELLS
        self._seconds = [0.0] * CELLS
        self._last = [0] * CELLS
        #: By how much each cell lies off the line.
        self._bend = [1.0] * CELLS
        self._spent_s = self._useful = 0.0

    def seconds(self, size: int) -> float:
        """What a batch of `size` padded elements will take; between the cells' middles, what lies between them."""
        mantissa, cell = frexp(size)
        bend = self._bend
        if mantissa < 0.75:
            share = (mantissa - 0.375) / 0.375
            off = bend[cell - 1] + (bend[cell] - bend[cell - 1]) * share
        else:
            share = (mantissa - 0.75) / 0.75
            off = bend[cell] + (bend[cell + 1] - bend[cell]) * share
        return (self.fixed_s + self.element_s * size) * off

    def worth_s(self, useful: int, parts: int) -> float:
        """What parts of `useful` elements in all would cost elsewhere: at the going rate, at most each by itself."""
        return min(self.rate_s * useful, self.fixed_s * parts + self.element_s * useful)

    def learn(self, size: int, useful: int, seconds: float) -> None:
        """A batch of `size` padded elements, of them `useful` no padding, took `seconds`."""
        self._batches += 1
        cell = frexp(size)[1]
        if seconds < QUICK_S and self._batches % QUICK_EVERY and self._counts[cell] >= QUICK_AFTER:
            return
        self._count(cell, size, max(seconds, 1e-9))
        if self._batches < FIT_EACH_UP_TO or self._batches % FIT_EVERY == 0:
            self._fit()
        self._spent_s += (seconds - self._spent_s) * RATE_WEIGHT
        self._useful += (useful - self._useful) * RATE_WEIGHT
        self.rate_s = self._spent_s / self._useful

    @property
    def trial_due(self) -> bool:
        """Another batch than the best may run now, for the knowledge alone."""
        return self._batches - self._tried_at >= TRIAL_EVERY

    def try_now(self, size: int) -> bool:
        """Whether nothing is known of batches of this size, or nothing new. If so, the next trial is due later."""
        cell = frexp(size)[1]
        unknown = self._counts[cell] < KNOWN_AFTER
        stale = self._batches - max(self._last[cell], self._tried_at) > STALE_AFTER
        if unknown or stale:
            self._tried_at = self._batches
        return unknown or stale

    def _count(self, cell: int, size: int, seconds: float) -> None:
        count = self._counts[cell] = self._counts[cell] + 1
        mean = self._seconds[cell]
        self._last[cell] = self._batches
        if count <= KNOWN_AFTER and not 0.5 * seconds <= mean <= 2 * seconds:
            # The first run of a size may compile or allocate something: the quicker one of the first two counts.
            quicker = count == 1 or seconds < mean
            self._seconds[cell] = seconds if quicker else mean
            self._sizes[cell] = size if quicker else self._sizes[cell]
            return
        weight = max(1 / count, CELL_WEIGHT)
        self._seconds[cell] += (min(seconds, OUTLIER * mean) - mean) * weight
        self._sizes[cell] += (size - self._sizes[cell]) * weight

    def _fit(self) -> None:
        """The line with the least relative errors over the cells' means, neither part of it below zero."""
        cells = [cell for cell in range(CELLS) if self._counts[cell]]
        su = sv = suu = suv = svv = 0.0
        for cell in cells:
            u = 1 / self._seconds[cell]
            v = self._sizes[cell] * u
            su, sv, suu, suv, svv = su + u, sv + v, suu + u * u, suv + u * v, svv + v * v
        spread = suu * svv - suv * suv
        if spread > 1e-9 * suu * svv:
            fixed, element = (su * svv - sv * suv) / spread, (sv * suu - su * suv) / spread
        else:
            element = len(cells) / (sv + PRIOR_FIXED * su)
            fixed = PRIOR_FIXED * element
        if element <= 0:
            fixed, element = su / suu, 0.0
        elif fixed <= 0:
            fixed, element = 0.0, sv / svv
        self.fixed_s, self.element_s = fixed, element
        self._follow(cells)

    def _follow(self, cells: list[int]) -> None:
        """Set each cell's bend; an unknown cell takes that of the next smaller known one, else of the smallest."""
        known = 0
        for cell in range(CELLS):
            if known + 1 < len(cells) and cell >= cells[known + 1]:
                known += 1
            at = cells[known]
            self._bend[cell] = self._seconds[at] / (self.fixed_s + self.element_s * self._sizes[at])
