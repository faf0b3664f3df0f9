"""What a chaos run has to show: each request answered once and rightly, little computed twice, nothing left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.keys import PoolKeys
from tests.chaos.caller import asked_file, model_of, noted
from tests.chaos.schedule import Poison

if TYPE_CHECKING:
    import redis

POWERS = {"square": 2, "cube": 3}
#: The error that each kind of poison ends in.
ERRORS = {
    Poison.RAISES: "model_error",
    Poison.NOT_FINITE: "model_error",
    Poison.EXITS: "worker_lost",
    Poison.CRASHES: "worker_lost",
    Poison.HANGS: "worker_lost",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of requests. `wrong` says of each what came, and what should have.

    `computed_again` counts computations beyond one for each time that a caller asked.
    """

    total: int
    lost: int
    wrong: list[str]
    computed_again: int

    @property
    def again_share(self) -> float:
        return self.computed_again / self.total

    def __str__(self) -> str:
        return (
            f"{self.total} requests: {self.lost} lost, {len(self.wrong)} answered wrongly, "
            f"{self.computed_again} computed again ({self.again_share:.2%})"
        )


def judge(files: Sequence[Path], notes: Path, bad: Mapping[int, Poison], total: int) -> Verdict:
    answers = {number: note for file in files for number, note in noted(file).items()}
    wrong = [text for number, note in answers.items() if (text := _wrong(number, note, bad.get(number)))]
    computed = _counted(notes.iterdir())
    asked = _counted(asked_file(file) for file in files)
    again = sum(max(0, times - asked[number]) for number, times in computed.items() if number not in bad)
    return Verdict(total, total - len(answers), wrong, again)


def unfinished(client: redis.Redis, pool: str) -> dict[str, int]:
    """What of the pool's work is still in Redis: entries and counts that should be gone."""
    keys = PoolKeys(pool)
    left = {stream: int(client.xlen(stream)) for stream in keys.streams}
    left[keys.tenants] = int(client.hlen(keys.tenants))
    return {key: count for key, count in left.items() if count}


def _counted(files: Iterable[Path]) -> Counter[int]:
    """How often each number stands in the files. A torn last line counts for nothing."""
    return Counter(int(line) for file in files for line in file.read_text().split("\n")[:-1])


def _wrong(number: int, note: Mapping[str, object], poison: Poison | None) -> str | None:
    if poison is not None:
        expected: object = ERRORS[poison]
        got = note.get("error")
    else:
        expected = float(number) ** POWERS[model_of(number)]
        got = note.get("value")
    return None if got == expected else f"request {number} ({poison or 'good'}): expected {expected}, got {dict(note)}"
