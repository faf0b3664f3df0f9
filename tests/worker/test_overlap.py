"""Two batches on a device that works beside its process: the next one travels while the first is computed.

The device is a stand-in with the steps of a GPU; that they overlap is told by their order, never by a clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event, Thread

import pytest

from common.errors import ModelError
from common.tensor import Array
from inference_worker.backends import open_model
from inference_worker.clock import RedisClock
from inference_worker.devices.faults import DeviceFailed, Fault
from inference_worker.holding import Holding
from inference_worker.item import Part, batch_of
from inference_worker.marks import Marks
from inference_worker.models.registry import Loaded
from inference_worker.outcome import Outcome
from inference_worker.runner import Runner
from tests.support.items import model, parts
from tests.support.model_folders import torch_safetensors
from tests.support.stand_in_device import STICKY, Asynchronous, standing_in
from tests.support.waiting import wait_until


class Beside:
    """A feed in a thread of its own, which has brought all that there is."""

    busy = False

    def call(self) -> None:
        """Everything is there."""

    def rest(self) -> None:
        """Everything is there."""

    def lead(self) -> bool:
        return False


class Stage:
    """A runner in a thread, and a model that multiplies by two."""

    def __init__(self, folder: Path) -> None:
        self.loaded = Loaded(spec := torch_safetensors(folder), open_model(spec, "stand-in", 1))
        self.holding = Holding(1000)
        self.outcomes: list[Outcome] = []
        self.failure: Exception | None = None
        self.runner = Runner(self.holding, Marks(RedisClock()), Beside(), self._deliver)
        self._thread = Thread(target=self._run, daemon=True)

    def requests(self, *values: float) -> list[Part]:
        return [parts(self.loaded, [[value] * 3], number=n)[0] for n, value in enumerate(values)]

    def start(self) -> None:
        self._thread.start()

    def compute_first(self, device: Asynchronous, *values: float) -> Event:
        """Start with a batch of these, by default of 1.0: the device is at work on it until the event is set."""
        computing = device.hold("compute 1")
        self.holding.add(self.requests(*values or (1.0,)))
        self.start()
        wait_until(lambda: "compute 1" in device.log, "the first batch is computed")
        return computing

    def copy_in_second(self, device: Asynchronous) -> None:
        """A second batch, of 2.0, is begun behind it and waits for the device."""
        self.holding.add(self.requests(2.0))
        wait_until(lambda: "in 2 done" in device.log, "the second batch has been copied in")

    def end(self) -> None:
        self.holding.close()
        self._thread.join(20)
        assert not self._thread.is_alive()

    @property
    def answers(self) -> dict[float, object]:
        """What was asked with which value: the answer to it, or the error."""
        return {float(one.part.arrays["x"][0, 0]): one.error or one.outputs["y"].tolist() for one in self.outcomes}

    def _deliver(self, outcomes: list[Outcome], here: bool) -> None:
        self.outcomes += outcomes

    def _run(self) -> None:
        try:
            self.runner.run()
        except DeviceFailed as error:
            self.failure = error


def twice(*values: float) -> dict[float, object]:
    return {value: [[2 * value] * 3] for value in values}


@pytest.fixture
def device() -> Iterator[Asynchronous]:
    device = Asynchronous()
    with standing_in(device):
        yield device


@pytest.fixture
def stage(tmp_path: Path, device: Asynchronous) -> Stage:
    return Stage(tmp_path)


def before(log: list[str], *steps: str) -> bool:
    """Whether the steps are in the log in this order."""
    places = [log.index(step) for step in steps]
    return places == sorted(places)


def test_the_next_batch_is_copied_in_while_the_first_is_computed(device: Asynchronous, stage: Stage) -> None:
    # Given a device that is at work on a first batch
    computing = stage.compute_first(device)

    # When another request comes
    stage.holding.add(stage.requests(2.0))

    # Then it is there before the first batch is done
    wait_until(lambda: "in 2 done" in device.log, "the second batch has been copied in")
    assert "compute 1 done" not in device.log
    computing.set()
    wait_until(lambda: len(stage.outcomes) == 2, "both are answered")
    stage.end()
    assert stage.answers == twice(1.0, 2.0)


def test_outputs_are_copied_out_while_the_next_batch_is_computed(device: Asynchronous, stage: Stage) -> None:
    second = device.hold("compute 2")
    first = stage.compute_first(device)
    stage.copy_in_second(device)

    first.set()

    wait_until(lambda: len(stage.outcomes) == 1, "the first is answered")
    assert "compute 2 done" not in device.log
    second.set()
    stage.end()


def test_no_third_batch_begins_before_the_first_has_landed_so_that_late_requests_join_it(
    device: Asynchronous, stage: Stage
) -> None:
    # Given two batches that are under way
    computing = stage.compute_first(device)
    stage.copy_in_second(device)

    # When others come, one after the other
    stage.holding.add(stage.requests(3.0))
    stage.holding.add(stage.requests(4.0))
    computing.set()
    wait_until(lambda: len(stage.outcomes) == 4, "all are answered")
    stage.end()

    # Then they went out together
    assert device.tried == [1, 1, 2]
    assert before(device.log, "compute 1 done", "in 3")


def test_a_batch_that_fails_on_the_device_costs_only_its_own_culprit(device: Asynchronous, stage: Stage) -> None:
    device.fail_at(2, "the kernel said no")
    computing = stage.compute_first(device)
    stage.copy_in_second(device)

    computing.set()
    wait_until(lambda: len(stage.outcomes) == 2, "both are answered")
    stage.end()

    assert stage.answers[1.0] == [[2.0] * 3]
    assert isinstance(stage.answers[2.0], ModelError)
    assert "the kernel said no" in str(stage.answers[2.0])


def test_a_dead_context_ends_the_worker_and_what_had_come_back_is_answered_even_so(
    device: Asynchronous, stage: Stage
) -> None:
    # Given a batch that has arrived and is not looked at yet, because the next one is being begun
    computing, beginning = device.hold("compute 1"), device.hold("begin 2")
    stage.holding.add(stage.requests(1.0))
    stage.start()
    wait_until(lambda: "compute 1" in device.log, "the first batch is computed")
    stage.holding.add(stage.requests(2.0))
    wait_until(lambda: "begin 2" in device.log, "the second one is begun")
    computing.set()
    wait_until(lambda: "out 1 done" in device.log, "the first batch is there")

    # When the device fails for good
    device.fail(STICKY)
    beginning.set()
    wait_until(lambda: stage.failure, "the runner ends")

    # Then the first has its answer, and whoever takes over runs the second alone
    assert isinstance(stage.failure, DeviceFailed)
    assert stage.failure.fault is Fault.STICKY
    assert stage.answers == twice(1.0)


def test_what_did_not_fit_beside_another_batch_runs_whole_when_the_device_is_free(tmp_path: Path) -> None:
    # Given a device that holds one batch of four rows at a time: 36 bytes of weights, and 4 * 12 bytes in and out
    device = Asynchronous(total=36 + 2 * 48 + 10)
    with standing_in(device):
        stage = Stage(tmp_path)
        computing = stage.compute_first(device, 1.0, 2.0, 3.0, 4.0)

        # When a second one of that size is begun beside it
        stage.holding.add(stage.requests(5.0, 6.0, 7.0, 8.0))
        wait_until(lambda: device.tried == [4, 4], "the second batch was tried")
        computing.set()
        wait_until(lambda: len(stage.outcomes) == 8, "all are answered")
        stage.end()

        # Then it was not cut, and is thought to fit
        assert device.tried == [4, 4, 4]
        assert stage.answers == twice(*map(float, range(1, 9)))
        assert stage.holding.fits(batch_of(stage.requests(1.0, 2.0, 3.0, 4.0)))


def test_what_a_batch_costs_is_learned_from_the_device_and_not_from_the_wait_for_it(tmp_path: Path) -> None:
    device = Asynchronous(compute_s=0.002)
    with standing_in(device):
        stage = Stage(tmp_path)
        computing = stage.compute_first(device)
        stage.copy_in_second(device)
        computing.set()
        wait_until(lambda: len(stage.outcomes) == 2, "both are answered")
        stage.end()

        assert [one.compute_us for one in stage.outcomes] == [2000, 2000]
        assert stage.holding.expected_s(batch_of(stage.requests(1.0))) == pytest.approx(0.002)


def test_a_context_that_dies_in_a_flight_leaves_that_batch_and_those_behind_it_to_others(
    device: Asynchronous, stage: Stage
) -> None:
    device.fail_at(1, STICKY)
    computing = stage.compute_first(device)
    stage.copy_in_second(device)

    computing.set()
    wait_until(lambda: stage.failure, "the runner ends")

    assert isinstance(stage.failure, DeviceFailed)
    assert stage.outcomes == []


def test_a_model_that_waits_for_its_results_runs_when_all_that_was_begun_has_landed(
    device: Asynchronous, stage: Stage
) -> None:
    # Given a batch under way, and a request for a model of the same process that has no such device
    ran_after: list[list[str]] = []

    def infer(batch: Mapping[str, Array]) -> dict[str, Array]:
        ran_after.append([*device.log])
        return {"y": batch["x"]}

    computing = stage.compute_first(device)
    stage.holding.add(parts(model(infer), [[2.0]]))

    computing.set()
    wait_until(lambda: len(stage.outcomes) == 2, "both are answered")
    stage.end()

    assert "out 1 done" in ran_after[0]


def test_what_the_worker_drains_is_finished_first(device: Asynchronous, stage: Stage) -> None:
    computing = stage.compute_first(device)

    stage.holding.close()
    computing.set()
    stage.end()

    assert stage.answers == twice(1.0)


def test_a_batch_that_hangs_on_the_device_shows_as_what_runs(device: Asynchronous, stage: Stage) -> None:
    computing = device.hold("compute 1")
    stage.holding.add(stage.requests(1.0))
    stage.start()
    wait_until(lambda: (stage.runner.running or (None, 0))[1] > 5, "it has run for some ms")
    assert (stage.runner.running or (None, 0))[0] is stage.loaded

    computing.set()
    wait_until(lambda: stage.outcomes and stage.runner.running is None, "nothing runs any more")
    stage.end()
