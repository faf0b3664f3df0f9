"""SIGTERM while models load, during a batch, and a second one during the drain."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from gateway import Client, Handle
from inference_worker.supervision.stopsignals import ECHO_S
from tests.faults.stage import WITHIN_S, Stage
from tests.support.waiting import wait_until

BATCH = 20  # more than one batch of the model
LOADING = """
import time
from pathlib import Path
from inference_worker import Model

class Slow(Model):
    name = "slow"
    inputs = {"x": "FP32[]"}

    def load(self, context):
        Path("%s").touch()
        time.sleep(600)

    def infer(self, batch):
        return batch["x"]
"""


def submit(stage: Stage, client: Client, gate: Path) -> list[Handle]:
    """More than one batch, of which the first runs and waits at the gate."""
    handles = [client.submit("gate", {"n": number, "gate": str(gate)}) for number in range(BATCH)]
    stage.entered(gate)
    wait_until(lambda: len(stage.pending()) == BATCH, "all are held", WITHIN_S)
    return handles


def test_a_host_that_still_loads_ends_at_once(stage: Stage, tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    models = tmp_path / "models.py"
    models.write_text(LOADING % loads)
    host = stage.host(models=models, ready=False)
    wait_until(loads.exists, "the model loads", WITHIN_S)

    assert host.stop(within_s=10.0) == 0


def test_what_runs_is_answered_and_the_rest_goes_to_another_host_with_its_count_unraised(stage: Stage) -> None:
    # Given a host that runs one batch and holds another
    host, gate = stage.host(), stage.gate()
    with stage.client() as client:
        handles = submit(stage, client, gate)
        running = len(stage.entered(gate))
        # When it is told to stop
        host.process.send_signal(signal.SIGTERM)
        wait_until(lambda: {one["consumer"] for one in stage.pending()} > {b"released"}, "the rest is handed back")
        # Then that counts as no delivery
        assert {one["times_delivered"] for one in stage.pending() if one["consumer"] != b"released"} == {1}
        gate.touch()
        assert host.process.wait(WITHIN_S) == 0
        done = sum(stage.computed().values())
        assert done >= running
        # And another host answers it
        stage.host()
        assert [int(handle.result()["value"]) for handle in handles] == list(range(BATCH))
    assert stage.letters() == []
    assert stage.again() == 0


def test_a_second_signal_during_a_drain_ends_the_host_and_another_one_takes_over(stage: Stage) -> None:
    # Given a host that drains, and cannot finish
    host, gate = stage.host(), stage.gate()
    with stage.client() as client:
        handles = submit(stage, client, gate)
        host.process.send_signal(signal.SIGTERM)
        wait_until(lambda: b"released" in {one["consumer"] for one in stage.pending()}, "it drains")
        # When it is told again
        time.sleep(2 * ECHO_S)  # One that comes sooner is taken for an echo of the first.
        host.process.send_signal(signal.SIGTERM)
        # Then it ends at once
        assert host.process.wait(10.0) == 0
        # And all that it held is answered by another
        gate.touch()
        stage.host()
        assert [int(handle.result()["value"]) for handle in handles] == list(range(BATCH))
    assert stage.letters() == []
    assert stage.again() == 0
