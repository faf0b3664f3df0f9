"""A torch model on a device that fails, through the code that a GPU's failures go through. The device is a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.broker import Broker
from common.errors import ConfigError
from gateway import Client
from inference_worker.backends import open_model
from inference_worker.devices.faults import Fault, fault_of, is_out_of_memory
from inference_worker.processes.exitcodes import Exit
from inference_worker.supervision.events import Exited, Ready, Started
from inference_worker.supervision.restarts import FENCE_S
from tests.support.model_folders import KINDS, torch_safetensors
from tests.support.stand_in_device import LOST, STICKY, StandIn, standing_in
from tests.support.supervised import Supervised, plans
from tests.support.waiting import wait_until

READY_S = 60.0


@pytest.fixture
def device() -> Iterator[StandIn]:
    device = StandIn(total=1000)
    with standing_in(device):
        yield device


def rows(count: int) -> dict[str, np.ndarray]:
    return {"x": np.ones((count, 3), np.float32)}


@pytest.mark.parametrize("kind", ["torch code with safetensors", "torch exported program", "torch script"])
def test_every_kind_of_torch_model_runs_on_the_device_that_its_name_opens(
    tmp_path: Path, device: StandIn, kind: str
) -> None:
    backend = open_model(KINDS[kind][0](tmp_path), "stand-in:0", 1)

    assert backend.infer(rows(2))["y"].tolist() == [[2, 2, 2]] * 2
    assert device.tried == [2]


def test_weights_take_memory_of_the_device_until_the_model_is_closed(tmp_path: Path, device: StandIn) -> None:
    backend = open_model(torch_safetensors(tmp_path), "stand-in", 1)
    assert str(device.memory()) == "964 B free of 1000 B"

    backend.close()
    assert device.memory().free == 1000


def test_a_batch_that_does_not_fit_fails_and_a_smaller_one_runs_after_it(tmp_path: Path, device: StandIn) -> None:
    backend = open_model(torch_safetensors(tmp_path), "stand-in", 1)

    with pytest.raises(Exception, match="out of memory") as caught:
        backend.infer(rows(64))

    assert is_out_of_memory(caught.value)
    assert len(backend.infer(rows(32))["y"]) == 32


@pytest.mark.parametrize(("message", "fault"), [(STICKY, Fault.STICKY), (LOST, Fault.LOST)])
def test_a_device_that_failed_fails_each_further_batch_with_what_it_means(
    tmp_path: Path, device: StandIn, message: str, fault: Fault
) -> None:
    backend = open_model(torch_safetensors(tmp_path), "stand-in", 1)
    device.fail(message)

    for _ in range(2):
        with pytest.raises(Exception, match="CUDA error") as caught:
            backend.infer(rows(1))
        assert fault_of(caught.value) is fault


def test_a_device_that_this_torch_was_not_built_for_is_a_matter_of_configuration(tmp_path: Path) -> None:
    import torch

    if torch.version.cuda is not None:
        pytest.skip("this torch was built for CUDA")
    with pytest.raises(ConfigError, match=r"there is no device 'cuda:0': torch .* was built without CUDA"):
        open_model(torch_safetensors(tmp_path), "cuda:0", 1)


class Fleet:
    """One supervised worker process on a stand-in, and a client."""

    def __init__(self, url: str, pool: str, folder: Path) -> None:
        self.folder = folder
        self.spec = torch_safetensors(folder / "models")
        command = [sys.executable, "-m", "tests.support.stand_in_process", str(folder)]
        self.it = Supervised(url, plans(pool, 1, (str(self.spec.folder),)), command=command)
        self.client = Client(url, pool=pool)

    def states(self, broker: Broker) -> list[tuple[str, str]]:
        import msgpack

        told = [msgpack.unpackb(one) for one in broker.descriptions() if one]
        return [(one["state"], one["error"]) for one in told]


@pytest.fixture
def fleet(redis_url: str, pool: str, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(redis_url, pool, tmp_path)
    with fleet.it, fleet.client:
        fleet.it.wait_for(Ready, within_s=READY_S)
        yield fleet


def test_what_ran_when_the_context_died_is_answered_by_the_process_that_comes_after(fleet: Fleet) -> None:
    (fleet.folder / "sticky").touch()

    handles = [fleet.client.submit("double", [float(n), 0.0, 0.0], cache=False) for n in range(8)]

    assert [handle.result(60)["y"].tolist() for handle in handles] == [[2.0 * n, 0, 0] for n in range(8)]
    assert len({event.pid for event in fleet.it.of(Started)}) == 2
    (ended,) = fleet.it.of(Exited)
    assert (ended.code, ended.error) == (
        1,
        f"device context is dead: infer of model 'double:1' failed: AcceleratorError: {STICKY}",
    )


def test_a_lost_device_is_fenced_off_and_status_says_so(fleet: Fleet, broker: Broker) -> None:
    (fleet.folder / "lost").touch()

    handle = fleet.client.submit("double", [1.0, 0.0, 0.0], cache=False)
    ended = fleet.it.wait_for(Exited)

    assert (ended.code, ended.will_restart_in_s) == (Exit.UNAVAILABLE, FENCE_S)
    assert "has fallen off the bus" in ended.error
    wait_until(
        lambda: [state for state, error in fleet.states(broker) if "fallen off the bus" in error] == ["fenced off"],
        "it is described as fenced off",
    )
    assert len(fleet.it.of(Started)) == 1
    handle.cancel()
