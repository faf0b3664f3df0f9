"""How far a job is: bars on a terminal, a line every ten seconds where the output is piped, or lines of JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from inference_worker.scoring.tally import Tally

LINE_S = 10.0
JSON_S = 1.0
KINDS = ("auto", "bars", "plain", "json", "none")


@dataclass(frozen=True, slots=True)
class State:
    """A moment of a job. `total` is None where the input has to be read to know; `done` counts earlier runs too."""

    total: int | None
    done: int
    errors: int
    rows_per_s: float
    elements_per_s: float

    @property
    def left_s(self) -> float | None:
        if self.total is None or self.rows_per_s <= 0:
            return None
        return max(0, self.total - self.done) / self.rows_per_s


def state_of(tally: Tally, total: int | None) -> State:
    return State(total, tally.skipped + tally.rows, tally.errors, tally.rows_per_s, tally.useful / tally.elapsed_s)


class Progress(Protocol):
    def show(self, state: State) -> None:
        """Called several times a second."""

    def say(self, line: str) -> None:
        """Something that happened, such as that Redis is away."""

    def close(self) -> None: ...


def open_progress(kind: str, clock: Callable[[], float] = time.monotonic) -> Progress:
    """What `kind` names; "auto" is bars on a terminal, and lines elsewhere."""
    if kind == "auto":
        kind = "bars" if sys.stderr.isatty() else "plain"
    if kind == "bars":
        return Bars()
    return (
        Lines(_plain, LINE_S, clock) if kind == "plain" else Lines(_json, JSON_S, clock) if kind == "json" else None_()
    )


class None_:  # noqa: N801 (None is taken)
    """Shows nothing."""

    def show(self, state: State) -> None:
        return None

    def say(self, line: str) -> None:
        return None

    def close(self) -> None:
        return None


class Lines:
    """A line each `every_s` seconds, on standard error."""

    def __init__(self, form: Callable[[State], str], every_s: float, clock: Callable[[], float]) -> None:
        self._form, self._every_s, self._clock = form, every_s, clock
        self._last_s = clock()

    def show(self, state: State) -> None:
        if self._clock() - self._last_s >= self._every_s:
            self._last_s = self._clock()
            _print(self._form(state))

    def say(self, line: str) -> None:
        _print(json.dumps({"event": line}) if self._form is _json else line)

    def close(self) -> None:
        return None


class Bars:
    """rich's bar, with rates."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars = Progress(
            BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[rates]}"), TimeRemainingColumn(),
            console=Console(stderr=True),
        )  # fmt: skip
        self._task = self._bars.add_task("score", total=None, rates="")
        self._bars.start()

    def show(self, state: State) -> None:
        self._bars.update(self._task, total=state.total, completed=state.done, rates=_rates(state))

    def say(self, line: str) -> None:
        self._bars.console.print(line, markup=False)

    def close(self) -> None:
        self._bars.stop()


def _plain(state: State) -> str:
    of = "" if state.total is None else f" of {state.total:,} ({100 * state.done / max(1, state.total):.1f} %)"
    left = "" if state.left_s is None else f", {duration(state.left_s)} left"
    return f"{state.done:,}{of} rows, {_rates(state)}{left}"


def _rates(state: State) -> str:
    errors = f", {state.errors:,} errors" if state.errors else ""
    return f"{state.rows_per_s:,.0f} rows/s, {state.elements_per_s:,.0f} elements/s{errors}"


def _json(state: State) -> str:
    facts: dict[str, Any] = {
        "rows": state.done,
        "total": state.total,
        "errors": state.errors,
        "rows_per_s": round(state.rows_per_s, 1),
        "elements_per_s": round(state.elements_per_s, 1),
        "left_s": None if state.left_s is None else round(state.left_s, 1),
    }
    return json.dumps(facts)


def duration(seconds: float) -> str:
    """`42 s`, `3 min`, `2.5 h`, `4 days`."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86_400:.3g} days"


def _print(line: str) -> None:
    # A reader that has gone costs the line and not the job.
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)
