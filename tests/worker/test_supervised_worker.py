"""The supervisor with the real worker process: what becomes of requests when processes start, die and drain."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from common.broker import read_inboxes
from common.protocol import Request, encode_request
from common.scripts import Submission
from common.tensor import to_tensor
from gateway.result import Result, read_reply
from inference_worker.supervision.child import COMMAND
from inference_worker.supervision.events import Exited, Ready, Started
from tests.support.supervised import Supervised, plans
from tests.support.waiting import wait_until

MODELS = (str(Path(__file__).parents[1] / "support" / "models" / "mortal.py"),)
READY_S = 60.0


@pytest.fixture
def ask(broker, redis_client):
    """Submits one request, and gives what waits for its reply."""
    inbox = broker.keys.inbox("asker")

    def submit(number, model, **inputs):
        tensors = {name: to_tensor(value) for name, value in inputs.items()}
        data = encode_request(Request(f"id-{number}", model, tensors))
        broker.submit([Submission(f"id-{number}", 1, "", "d", data)], inbox, 60_000)
        return lambda: replies(number)

    answered = {}

    def replies(number):
        while number not in answered:
            for data in read_inboxes(redis_client, [inbox]):
                request_id, answer = read_reply(data)
                answered[int(request_id.partition("-")[2])] = answer
        assert isinstance(answered[number], Result)
        return answered[number].outputs

    return submit


def test_a_request_is_answered_by_a_supervised_worker(redis_url, pool, ask):
    with Supervised(redis_url, plans(pool, 1, MODELS), command=COMMAND) as it:
        ready = it.wait_for(Ready, within_s=READY_S)
        outputs = ask(1, "double", x=np.array([1.0, 2.0], np.float32))()

    assert sorted(ready.models) == ["dies_once:1", "double:1", "waits:1"]
    np.testing.assert_array_equal(outputs["y"], [2.0, 4.0])


def test_a_request_whose_worker_is_killed_is_answered_by_the_next_one(redis_url, pool, ask, tmp_path):
    with Supervised(redis_url, plans(pool, 1, MODELS), command=COMMAND, lease_s=60.0) as it:
        it.wait_for(Ready, within_s=READY_S)

        outputs = ask(1, "dies_once", marker=str(tmp_path / "marker"))()

        first, second = (event.pid for event in it.of(Started))
        assert it.of(Exited)[0].code == -signal.SIGKILL
        assert outputs["pid"] == second != first


def test_a_draining_worker_answers_what_it_runs_and_hands_back_the_rest(
    redis_url, redis_client, pool, ask, broker, tmp_path
):
    gates = [tmp_path / str(number) for number in range(3)]
    with Supervised(redis_url, plans(pool, 1, MODELS), command=COMMAND) as it:
        it.wait_for(Ready, within_s=READY_S)
        running = ask(0, "waits", gate=str(gates[0]))
        wait_until(Path(f"{gates[0]}.entered").exists, "the first request runs")
        waiting = [ask(number, "waits", gate=str(gates[number])) for number in (1, 2)]
        (consumer,) = (name.decode() for name in redis_client.zrange(broker.keys.leases, 0, -1))
        wait_until(lambda: len(broker.held(consumer)) == 3, "the worker holds all three")

        it.supervisor.stop()
        wait_until(lambda: len(broker.held(consumer)) == 1, "the two that wait are handed back")
        gates[0].touch()
        running()
        it.wait_for_end()

    assert [event.code for event in it.of(Exited)] == [0]
    with Supervised(redis_url, plans(pool, 1, MODELS), command=COMMAND) as it:
        for gate in gates:
            gate.touch()
        for reply in waiting:
            reply()
