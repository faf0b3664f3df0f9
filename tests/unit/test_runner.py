"""A batch that fails costs only the part at fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.errors import Cancelled, DeadlineExceeded, ModelError
from common.tensor import Array
from inference_worker.clock import RedisClock
from inference_worker.holding import Holding
from inference_worker.item import Part
from inference_worker.marks import Marks
from inference_worker.outcome import Outcome
from inference_worker.registry import Loaded
from inference_worker.runner import Runner, WrongRowsError
from tests.support.items import model, parts


class Closing:
    """A feed that brings nothing more: when all has run, it closes the holding."""

    busy = False

    def __init__(self, holding: Holding) -> None:
        self._holding = holding

    def call(self) -> None:
        """Nobody takes beside the runner."""

    def rest(self) -> None:
        """Nobody takes beside the runner."""

    def lead(self) -> bool:
        self._holding.close()
        return True


def run(wanted: list[Part], marks: Marks | None = None) -> list[Outcome]:
    """The outcomes of all that is wanted, in one go."""
    holding = Holding(1000)
    holding.add(wanted)
    outcomes: list[Outcome] = []
    Runner(holding, marks or Marks(RedisClock()), Closing(holding), lambda some, here: outcomes.extend(some)).run()
    return outcomes


class Fragile:
    """Fails whenever a batch holds the value 13; counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        self.runs += 1
        if (batch["x"] == 13).any():
            raise ValueError("thirteen")
        return {"output": batch["x"] * 2}


def values(loaded: Loaded, numbers: list[int]) -> list[Part]:
    return [parts(loaded, [value], number=n)[0] for n, value in enumerate(numbers)]


def test_each_part_gets_its_own_rows() -> None:
    outcomes = run(values(model(Fragile(), rows=8), [1, 2, 3]))
    assert [one.outputs["output"].tolist() for one in outcomes] == [[[2]], [[4]], [[6]]]
    assert {one.batch_rows for one in outcomes} == {3}


def test_one_bad_item_never_fails_its_batch_mates() -> None:
    fragile = Fragile()
    outcomes = run(values(model(fragile, rows=16), [*range(1, 12), 13, *range(20, 24)]))
    failed = [one for one in outcomes if one.error is not None]
    assert [one.part.arrays["x"].item() for one in failed] == [13]
    assert isinstance(failed[0].error, ModelError)
    assert "thirteen" in str(failed[0].error)


def test_one_culprit_among_sixteen_costs_at_most_two_runs_for_each_halving() -> None:
    fragile = Fragile()
    run(values(model(fragile, rows=16), [13, *range(20, 35)]))
    assert fragile.runs - 1 <= 2 * 4 + 1


def test_a_wrong_number_of_rows_is_an_error_and_never_a_mix_up() -> None:
    outcomes = run(values(model(lambda batch: {"output": batch["x"][:-1]}, rows=4), [1, 2, 3]))
    assert all(isinstance(one.error, WrongRowsError) for one in outcomes)
    assert "0 rows of 'output' for a batch of 1" in str(outcomes[0].error)


def test_a_scalar_output_is_a_wrong_number_of_rows() -> None:
    outcomes = run(values(model(lambda batch: {"output": np.float32(1)}), [1]))
    assert "a scalar" in str(outcomes[0].error)


def test_nan_is_an_error_only_for_its_own_part_and_only_where_the_model_asks() -> None:
    def infer(batch: Mapping[str, Array]) -> dict[str, Any]:
        return {"output": np.where(batch["x"] == 13, np.nan, batch["x"])}

    checked = run(values(model(infer, check_finite=True), [1, 13]))
    unchecked = run(values(model(infer), [1, 13]))
    assert [one.error is None for one in checked] == [True, False]
    assert "NaN or infinity in its output 'output'" in str(checked[1].error)
    assert [one.error for one in unchecked] == [None, None]


def test_what_is_overdue_when_its_batch_is_collated_does_not_run() -> None:
    fragile = Fragile()
    clock = RedisClock()
    clock.set(10_000)
    outcomes = run(parts(model(fragile), [1], deadline_ms=9_999), Marks(clock))
    assert isinstance(outcomes[0].error, DeadlineExceeded)
    assert fragile.runs == 0


def test_what_is_cancelled_when_its_batch_is_collated_does_not_run() -> None:
    fragile = Fragile()
    marks = Marks(RedisClock())
    marks.set_cancelled(frozenset([(1, b"7-0")]))
    outcomes = run(parts(model(fragile), [1], number=7), marks)
    assert isinstance(outcomes[0].error, Cancelled)
    assert fragile.runs == 0
