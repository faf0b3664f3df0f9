"""Row ranges of the input's files, each scored as a whole, and which of them are left. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from inference_worker.scoring.sources import Source


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows `start` to `start + rows` of a source, fewer at its end. `name` is that of its results."""

    source: int
    number: int
    start: int
    rows: int
    name: str


def shard(source: int, of: Source, number: int, rows: int) -> Shard:
    return Shard(source, number, number * rows, rows, f"{of.name}-{number:05d}")


def count(total: int, rows: int) -> int:
    """Shards of `total` rows."""
    return -(-total // rows)


class Ledger:
    """Which shards are finished, and where each source ends, as far as that is known."""

    def __init__(self, sources: tuple[Source, ...], shard_rows: int) -> None:
        self._sources = sources
        self._rows = shard_rows
        self._totals: dict[int, int] = {}
        self.finished: set[str] = set()

    def ends(self, source: int, total: int) -> None:
        self._totals[source] = total

    def total(self) -> int | None:
        """Rows of the whole input; None as long as a source's end is not known."""
        return sum(self._totals.values()) if len(self._totals) == len(self._sources) else None

    def left(self, source: int) -> Iterator[Shard]:
        """The shards of a source that are not finished, in order; without end until its end is known."""
        number = 0
        while (total := self._totals.get(source)) is None or number < count(total, self._rows):
            one = shard(source, self._sources[source], number, self._rows)
            if one.name not in self.finished:
                yield one
            number += 1

    def complete(self) -> bool:
        sources = range(len(self._sources))
        return all(source in self._totals and next(self.left(source), None) is None for source in sources)


Claim = Callable[[Shard], bool]
