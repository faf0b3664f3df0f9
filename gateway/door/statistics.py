"""What one door has counted of each model since it started, as Triton's statistics call tells it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from common.names import MAX_NAME
from gateway.result import Result

#: Titles that callers may make up; what answers is always counted.
MOST = 1024


@dataclass(slots=True)
class ModelStatistics:
    """Counts, and sums of seconds. `rows` of a batch that several requests shared count for each of them."""

    answered: int = 0
    answered_s: float = 0.0
    failed: int = 0
    failed_s: float = 0.0
    cached: int = 0
    cached_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0
    last_ms: int = 0


class Statistics:
    """By (model, version that answered); of a failure the version that was asked for, "" where none was."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], ModelStatistics] = {}

    def answered(self, result: Result, took_s: float, now_s: float) -> None:
        counts = self._of(result.model, result.version)
        counts.answered += 1
        counts.answered_s += took_s
        counts.last_ms = int(now_s * 1000)
        if result.cached:
            counts.cached += 1
            counts.cached_s += took_s
            return
        timings = result.timings
        counts.queue_s += (timings.queue_us + timings.wait_us) / 1e6
        counts.compute_s += timings.compute_us / 1e6

    def failed(self, model: str, version: str | None, took_s: float) -> None:
        """Of what has never answered only the first ones are counted, and no name of any length."""
        title = model, version or ""
        if title not in self._models and (len(self._models) >= MOST or max(map(len, title)) > MAX_NAME):
            return
        counts = self._of(*title)
        counts.failed += 1
        counts.failed_s += took_s

    def of(self, model: str, version: str) -> ModelStatistics:
        return self._models.get((model, version)) or ModelStatistics()

    def _of(self, model: str, version: str) -> ModelStatistics:
        return self._models.setdefault((model, version), ModelStatistics())
