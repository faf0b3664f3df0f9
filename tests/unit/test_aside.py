"""Stages beside the runner: who is next, what takes room, and what may be taken back."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import numpy as np
import pytest

from inference_worker.clock import RedisClock
from inference_worker.holding import Holding
from inference_worker.item import Item
from inference_worker.marks import Marks
from inference_worker.models.registry import Loaded
from inference_worker.pipeline.aside import Aside
from inference_worker.pipeline.stages import Stage
from inference_worker.runner import Runner
from tests.support.items import item, model, part
from tests.support.waiting import wait_until

PREPROCESS = "preprocess"


class Gate:
    """A job that has begun and ends when it is told."""

    def __init__(self) -> None:
        self.begun, self._end = Event(), Event()

    def __call__(self, *_: object) -> None:
        self.begun.set()
        self._end.wait()

    def open(self) -> None:
        self._end.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage("preprocess of m:1", 1)
    yield stage
    stage.close()


@pytest.fixture
def loaded(stage: Stage) -> Loaded:
    """A model whose preprocess has one thread."""
    loaded = model()
    loaded.backend.stages = {PREPROCESS: stage}
    return loaded


def test_of_what_waits_the_lowest_order_is_next(stage: Stage, gate: Gate) -> None:
    ran: list[float] = []
    stage.put(0.0, gate)
    gate.begun.wait()
    for order in (3.0, 1.0, 2.0):
        stage.put(order, lambda order=order: ran.append(order))  # type: ignore[misc]

    gate.open()
    stage.close()

    assert ran == [1.0, 2.0, 3.0]


def test_an_item_takes_room_in_the_holding_until_its_stage_is_done_with_it(loaded: Loaded, gate: Gate) -> None:
    holding = Holding(4)
    aside = Aside(PREPROCESS, holding)

    aside.put(item(loaded, np.zeros((3, 2))), gate)
    assert holding.room == 1
    assert holding.reserved == 3

    gate.open()
    aside.join()
    assert holding.room == 4


def test_what_waits_is_counted_by_model_and_what_has_begun_is_not(loaded: Loaded, gate: Gate) -> None:
    aside = Aside(PREPROCESS, Holding(64))
    for number in range(3):
        aside.put(item(loaded, [1], number=number), gate)
    wait_until(gate.begun.is_set, "one has begun")

    assert aside.counts() == {"m:1 preprocess": 2}


def test_what_has_not_begun_can_be_taken_back_and_is_not_done(loaded: Loaded, gate: Gate) -> None:
    done: list[Item] = []
    holding = Holding(64)
    aside = Aside(PREPROCESS, holding)
    aside.put(item(loaded, [1]), gate)
    wait_until(gate.begun.is_set, "the first has begun")
    others = [item(loaded, [1], number=number) for number in (1, 2)]
    for one in others:
        aside.put(one, done.append)

    assert set(aside.take_back()) == set(others)
    assert holding.reserved == 1

    gate.open()
    aside.join()
    assert done == []
    assert holding.reserved == 0


def test_rows_in_a_stage_leave_less_room_for_those_that_are_held() -> None:
    holding = Holding(8)
    holding.reserve(5)
    holding.add([part(model())])
    assert holding.room == 2

    holding.free(5)
    assert holding.room == 7


class Feed:
    """Writes down who is to take while nothing is held: the stage's one item comes beside it, and then the end."""

    busy = False

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self.asked: list[str] = []

    def call(self) -> None:
        if self._holding.reserved:
            self.asked.append("call")
            self._holding.add([part(model())])
            self._holding.free(1)

    def rest(self) -> None:
        """Nobody takes beside the runner."""

    def lead(self) -> bool:
        self.asked.append("lead")
        self._holding.close()
        return True


def test_while_a_stage_is_at_work_the_runner_sits_in_no_read_of_its_own() -> None:
    holding = Holding(8)
    holding.reserve(1)
    feed = Feed(holding)

    Runner(holding, Marks(RedisClock()), feed, lambda outcomes, here: None).run()

    assert feed.asked == ["call", "lead"]
