"""A client process: asks for its share of the requests, and notes each answer on a line of its file.

python -m tests.chaos.caller URL POOL FILE FIRST STOP PER_SECOND SEED

It may be killed at any time: started again on the same file, it goes on where that ends.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from common.errors import InferenceError
from gateway import Client, Result
from tests.chaos.schedule import Poison, poisons

WINDOW = 64
TIMEOUT_S = 180.0


def model_of(number: int) -> str:
    """Half of them may be answered from the cache, and shared; half are computed each by itself."""
    return "square" if number % 2 else "cube"


def main(url: str, pool: str, file: str, first: int, stop: int, per_second: float, seed: int, total: int) -> None:
    bad = poisons(seed, total)
    answered = noted(Path(file))
    numbers = [number for number in range(first, stop) if number not in answered]
    with (
        Client(url, pool=pool, timeout_s=TIMEOUT_S) as client,
        open(file, "a", buffering=1) as notes,
        open(asked_file(Path(file)), "a", buffering=1) as asks,
    ):
        for model in ("square", "cube"):
            mine = [number for number in numbers if model_of(number) == model]
            inputs = _paced(mine, bad, per_second, asks)
            for number, answer in zip(mine, client.map(model, inputs, window=WINDOW, on_error="return"), strict=True):
                notes.write(json.dumps(_note(number, answer)) + "\n")


def asked_file(file: Path) -> Path:
    """Where a caller notes each number that it asks for, again after it was killed."""
    return file.with_suffix(".asked")


def noted(file: Path) -> dict[int, dict[str, object]]:
    """What stands in a caller's file, by number. Its last line may be torn: that request is asked again."""
    found: dict[int, dict[str, object]] = {}
    if not file.exists():
        return found
    text = file.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole)
    for line in whole.splitlines():
        note = json.loads(line)
        assert note["number"] not in found, f"request {note['number']} has two visible results"
        found[note["number"]] = note
    return found


def _paced(
    numbers: Iterable[int], bad: dict[int, Poison], per_second: float, asks: IO[str]
) -> Iterator[dict[str, object]]:
    started = time.monotonic()
    for count, number in enumerate(numbers):
        time.sleep(max(0.0, started + count / per_second - time.monotonic()))
        asks.write(f"{number}\n")
        yield {"n": np.array(number), "poison": str(bad.get(number, ""))}


def _note(number: int, answer: Result | InferenceError) -> dict[str, object]:
    if isinstance(answer, InferenceError):
        return {"number": number, "error": answer.code, "message": answer.message}
    return {"number": number, "value": float(answer["value"])}


if __name__ == "__main__":
    url, pool, file, first, stop, per_second, seed, total = sys.argv[1:]
    main(url, pool, file, int(first), int(stop), float(per_second), int(seed), int(total))
