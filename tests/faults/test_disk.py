"""A disk that takes no more costs log lines and no work. The weights: worker/test_remote_processes.py."""

from __future__ import annotations

import os
import signal

from tests.faults.stage import Stage
from tests.support.waiting import wait_until


def test_a_host_whose_log_cannot_be_written_serves_restarts_and_drains(stage: Stage) -> None:
    with open("/dev/full", "wb") as full:
        host = stage.host(stderr=full, options=("--log-level", "debug"))
    [worker] = host.workers()
    with stage.client() as client:
        assert int(client.infer("work", {"n": 1, "act": ""})["value"]) == 2
        # It has something to say now: a worker that died, and one that is started
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not host.runs(worker), "it has ended")
        assert int(client.infer("work", {"n": 2, "act": ""})["value"]) == 4
    assert host.stop() == 0
