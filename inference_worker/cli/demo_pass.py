"""One pass of the demo: what it answered, how fast, and in which batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.tensor import Array
from gateway import Result


@dataclass(frozen=True, slots=True)
class Pass:
    """All sentences through one model, once."""

    model: str
    results: Sequence[Result]
    seconds: float

    @property
    def per_second(self) -> float:
        return len(self.results) / self.seconds

    @property
    def cached(self) -> int:
        return sum(result.cached for result in self.results)

    def batches(self) -> dict[int, int]:
        """Rows of a batch -> how many batches of that size ran."""
        rows = [result.timings.batch_rows for result in self.results if not result.cached]
        return {size: round(rows.count(size) / size) for size in sorted(set(rows))}

    def column(self, output: str) -> Array:
        """One output of all results, stacked."""
        return np.stack([result[output] for result in self.results])
