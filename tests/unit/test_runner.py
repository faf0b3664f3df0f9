"""A batch that fails costs only the part at fault."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from common.errors import Cancelled, DeadlineExceeded, ModelError
from common.tensor import Array
from inference_worker.clock import RedisClock
from inference_worker.holding import Holding
from inference_worker.infer import WrongRowsError
from inference_worker.item import Part
from inference_worker.marks import Marks
from inference_worker.models.registry import Loaded
from inference_worker.outcome import Outcome
from inference_worker.runner import Runner
from tests.support.items import model, part, parts


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


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "NoneType"), ("text", "str"), ((one for one in [1]), "generator")],
    ids=["None", "text", "generator"],
)
def test_what_has_no_rows_at_all_is_named_by_its_type(value: object, told: str) -> None:
    [outcome] = run(values(model(lambda batch: {"output": value}), [1]))
    assert f"returned a value of type {told} for 'output' for a batch of 1; an output is an array" in str(outcome.error)


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


@pytest.mark.parametrize("count", [*range(1, 18), 31, 33, 47, 64])
def test_one_culprit_among_any_number_costs_at_most_two_runs_for_each_halving_and_one(count: int) -> None:
    for at in range(count):
        fragile = Fragile()
        numbers = [number + 100 for number in range(count)]
        numbers[at] = 13
        outcomes = run(values(model(fragile, rows=64), numbers))
        assert [one.error is not None for one in outcomes] == [number == 13 for number in numbers]
        assert fragile.runs - 1 <= 2 * math.log2(count) + 1


def test_parts_that_fail_only_beside_each_other_all_have_results() -> None:
    def infer(batch: Mapping[str, Array]) -> dict[str, Array]:
        if len(batch["x"]) > 1:
            raise ValueError("one at a time")
        return {"output": batch["x"]}

    assert all(one.error is None for one in run(values(model(infer, rows=8), list(range(8)))))


# -- memory -----------------------------------------------------------------------------------------------------------


class Small:
    """A device on which batches of up to `most` elements fit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.sizes: list[int] = []

    def __call__(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        self.sizes.append(batch["x"].size)
        if batch["x"].size > self._most:
            raise MemoryError("the device is full")
        return {"output": batch["x"].sum(axis=1)}


def test_a_batch_that_does_not_fit_runs_as_smaller_ones_and_nobody_sees_it() -> None:
    small = Small(10)
    outcomes = run(values(model(small, rows=64), list(range(64))))
    assert [one.outputs["output"].item() for one in outcomes] == list(range(64))
    assert all(one.error is None for one in outcomes)


def test_what_did_not_fit_is_remembered_for_the_rest_of_the_batch_and_for_the_next_ones() -> None:
    small = Small(10)
    run(values(model(small, rows=64), list(range(200))))
    failed = [size for size in small.sizes if size > 10]
    # None of these sizes runs again; a size between, to which it has grown, may.
    assert failed[:3] == [64, 32, 16]
    assert max(failed[3:], default=0) < 16


def test_a_request_of_many_rows_is_cut_where_it_does_not_fit() -> None:
    small = Small(40)
    outcomes = run(parts(model(small, shape=(10,), rows=64), np.arange(160).reshape(16, 10)))
    found = np.concatenate([one.outputs["output"] for one in sorted(outcomes, key=lambda one: one.part.start)])
    assert found.tolist() == np.arange(160).reshape(16, 10).sum(axis=1).tolist()
    assert [(one.part.start, one.part.rows) for one in outcomes] == [(0, 4), (4, 4), (8, 4), (12, 4)]


def test_what_does_not_fit_even_alone_is_an_error_with_figures_and_its_neighbours_have_results() -> None:
    loaded = model(Small(10), pad={"x": 0.0})
    outcomes = run([part(loaded, 4, number=1), part(loaded, 5, number=2), part(loaded, 50, number=3)])
    errors = {one.part.length: one.error for one in outcomes}
    assert errors[4] is None
    assert errors[5] is None
    assert isinstance(errors[50], ModelError)
    assert str(errors[50]) == (
        "model 'm:1' ran out of memory on one row of 50 elements, alone in its batch; send a smaller input, or serve "
        "the model where there is more memory: MemoryError: the device is full"
    )


def test_the_arrays_of_a_batch_that_did_not_fit_are_gone_before_smaller_ones_run() -> None:
    alive: list[weakref.ref[Array]] = []

    def infer(batch: Mapping[str, Array]) -> dict[str, Array]:
        assert all(one() is None for one in alive)
        activations = batch["x"] * 2
        alive.append(weakref.ref(activations))
        if len(activations) > 2:
            raise MemoryError
        return {"output": batch["x"]}

    assert all(one.error is None for one in run(values(model(infer, rows=8), list(range(8)))))


# -- counts -----------------------------------------------------------------------------------------------------------


def test_it_counts_rows_padding_and_why_batches_went_out() -> None:
    holding = Holding(1000)
    loaded = model(pad={"x": 0.0}, rows=4)
    holding.add(part(loaded, length, number=length) for length in (1, 2, 3, 4, 10))
    runner = Runner(holding, Marks(RedisClock()), Closing(holding), lambda some, here: None)
    runner.run()
    tally = runner.tally
    assert (tally.batches, tally.rows, tally.useful, tally.padded) == (2, 5, 20, 26)
    assert tally.reasons() == {"full": 1, "idle": 1}


# -- what may end the process -----------------------------------------------------------------------------------------


def test_what_others_came_to_is_sent_before_a_request_runs_with_which_a_worker_died() -> None:
    story: list[str] = []

    def infer(batch: Mapping[str, Array]) -> dict[str, Array]:
        story.append(f"run {batch['x'].ravel().tolist()}")
        return {"output": batch["x"]}

    holding, loaded = Holding(1000), model(infer)
    holding.add(
        part
        for number, deliveries in ((1, 0), (2, 1), (3, 0))
        for part in parts(loaded, [float(number)], number=number, deliveries=deliveries, taken_s=float(number))
    )

    Runner(
        holding,
        Marks(RedisClock()),
        Closing(holding),
        lambda some, here: story.append("deliver"),
        settle=lambda: story.append("settle"),
    ).run()

    at = story.index("run [2.0]")
    assert story[at - 1] == "settle"
    assert story.count("settle") == 1
    assert story[:at].count("deliver") == sum(told.startswith("run") for told in story[:at])
