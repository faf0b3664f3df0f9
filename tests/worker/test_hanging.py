"""A model that hangs, holds the interpreter's lock, or leaves a thread behind: what becomes of its worker."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from common.errors import WorkerLost
from gateway import Client
from inference_worker.supervision.child import COMMAND
from inference_worker.supervision.events import Exited, Ready, Started
from tests.support.supervised import Supervised, plans

MODELS = """
import ctypes
import threading
import time
from inference_worker import model

libc = ctypes.PyDLL(None)  # which keeps the interpreter's lock while it is called


@model(inputs={"x": "FP32[]"}, rows=8, timeout=1)
def loops(x):
    while (x == 13).any():
        pass
    return 2 * x


@model(inputs={"x": "FP32[]"}, timeout=5)
def holds(x):
    if x[0] > 0:
        libc.usleep(int(x[0] * 1e6))
    return x


@model(inputs={"x": "FP32[]"})
def leaves(x):
    threading.Thread(target=time.sleep, args=(600,)).start()
    return x
"""
READY_S = 60.0


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    return path


def test_an_item_that_hangs_is_given_up_after_its_deliveries_and_its_batch_mates_are_answered(
    redis_url: str, pool: str, models: Path
) -> None:
    with (
        Supervised(redis_url, plans(pool, 1, (str(models),)), command=COMMAND, max_deliveries=2) as it,
        Client(redis_url, pool=pool, timeout_s=60) as client,
    ):
        it.wait_for(Ready, within_s=READY_S)

        handles = [client.submit("loops", number) for number in (1.0, 2.0, 13.0, 4.0)]

        for handle, double in zip(handles, (2.0, 4.0, None, 8.0), strict=True):
            if double is None:
                with pytest.raises(WorkerLost, match=r"^2 workers died while they ran this request"):
                    handle.result()
            else:
                assert handle.result()["output"] == double
        killed = it.of(Exited)

    assert [event.code for event in killed] == [-signal.SIGKILL] * 2
    assert all(event.error.startswith("model 'loops:1' had run one batch for ") for event in killed)


def test_a_model_that_holds_the_interpreters_lock_within_its_time_is_left_alone(
    redis_url: str, pool: str, models: Path
) -> None:
    with (
        Supervised(redis_url, plans(pool, 1, (str(models),)), command=COMMAND) as it,
        Client(redis_url, pool=pool, timeout_s=30) as client,
    ):
        it.wait_for(Ready, within_s=READY_S)

        assert client.infer("holds", 3.0)["output"] == 3.0

        assert it.of(Exited) == []
        assert len(it.of(Started)) == 1


def test_a_thread_that_a_model_left_running_does_not_keep_a_drained_worker(
    redis_url: str, pool: str, models: Path
) -> None:
    with (
        Supervised(redis_url, plans(pool, 1, (str(models),)), command=COMMAND, drain_s=60.0) as it,
        Client(redis_url, pool=pool) as client,
    ):
        it.wait_for(Ready, within_s=READY_S)
        client.infer("leaves", 1.0)

        it.supervisor.stop()

        it.wait_for_end()
    assert [event.code for event in it.of(Exited)] == [0]
