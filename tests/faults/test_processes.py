"""Workers, supervisors and clients that are killed, and hosts that stand still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from tests.faults.stage import LEASE_S, ROOT, WITHIN_S, Stage
from tests.support.leaks import leaked_keys
from tests.support.supervised import alive
from tests.support.waiting import wait_until

BATCH = 8
TIMEOUT_S = 2.0
#: A client that says when its requests are submitted, and then waits for ever.
CLIENT = """
import sys, time
from gateway import Client
client = Client(sys.argv[1], pool=sys.argv[2], timeout_s=float(sys.argv[4]))
handles = [client.submit("gate", {"n": number, "gate": sys.argv[3]}) for number in range(100, 120)]
print("submitted", flush=True)
time.sleep(600)
"""


def deliveries(stage: Stage) -> set[int]:
    return {entry["times_delivered"] for entry in stage.pending()}


def test_a_killed_workers_batch_is_answered_and_counted_once_more(
    stage: Stage, recovered: Callable[[float], None]
) -> None:
    # Given a worker that holds a batch, and another one
    host, gate = stage.host(procs=2), stage.gate()
    with stage.client() as client:
        handles = [client.submit("gate", {"n": number, "gate": str(gate)}) for number in range(BATCH)]
        [victim, *_] = stage.entered(gate)
        wait_until(lambda: len(stage.pending()) == BATCH, "all are held")
        # When it is killed, and the others may go on
        killed_s = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not host.runs(victim), "it has ended")
        wait_until(lambda: 2 in deliveries(stage), "another takes over what it held", WITHIN_S)
        assert max(deliveries(stage)) == 2
        gate.touch()
        # Then all are answered, none by it
        results = [handle.result() for handle in handles]
        recovered(killed_s)
    assert [int(result["value"]) for result in results] == list(range(BATCH))
    assert victim not in {int(result["pid"]) for result in results}
    # And nobody was given up, nor computed twice: what it had begun was never done
    assert stage.letters() == []
    assert stage.again() == 0


def test_what_a_worker_died_with_is_taken_over_one_right_after_the_other(
    stage: Stage, recovered: Callable[[float], None]
) -> None:
    # Given a worker that holds requests which take a moment each
    host, gate = stage.host(), stage.gate()
    [victim] = host.workers()
    with stage.client() as client:
        client.submit("gate", {"n": 100, "gate": str(gate)})
        stage.entered(gate)
        handles = [client.submit("work", {"n": number, "act": "slow"}) for number in range(2 * BATCH)]
        wait_until(lambda: len(stage.pending()) == 2 * BATCH + 1, "all are held")
        stage.host()
        # When it is killed, so that each of them may be the one that it died of
        killed_s = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not host.runs(victim), "it has ended")
        gate.touch()
        # Then the worker that runs them alone waits for nothing in between: for a second each it would take too long
        wait_until(lambda: all(handle.done() for handle in handles), "all are answered", BATCH)
        recovered(killed_s)
        assert [int(handle.result()["value"]) for handle in handles] == [2 * number for number in range(2 * BATCH)]


def test_a_killed_supervisor_takes_its_workers_along_and_another_host_takes_over(
    stage: Stage, recovered: Callable[[float], None]
) -> None:
    hosts, gate = [stage.host(), stage.host()], stage.gate()
    with stage.client() as client:
        handles = [client.submit("gate", {"n": number, "gate": str(gate)}) for number in range(BATCH)]
        [holder, *_] = stage.entered(gate)
        [victim] = [host for host in hosts if host.runs(holder)]

        killed_s = time.monotonic()
        workers = victim.kill()
        wait_until(lambda: not any(map(alive, workers)), "its workers end with it")
        gate.touch()

        assert [int(handle.result()["value"]) for handle in handles] == list(range(BATCH))
        recovered(killed_s)
    assert holder in workers
    assert stage.letters() == []
    assert stage.again() == 0


def test_a_killed_client_leaves_nothing_behind(stage: Stage) -> None:
    # Given a client whose requests wait for another's
    stage.host()
    gate = stage.gate()
    with stage.client() as other:
        first = other.submit("gate", {"n": 1, "gate": str(gate)})
        stage.entered(gate)
        with subprocess.Popen(
            [sys.executable, "-c", CLIENT, stage.url, stage.pool, str(gate), str(TIMEOUT_S)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        ) as client:  # fmt: skip
            assert client.stdout is not None
            client.stdout.readline()
            wait_until(lambda: stage.unfinished() == 21, "its requests are there")
            # When it is killed, and the time of its requests is over
            client.kill()
        assert leaked_keys(stage.redis, stage.pool) == []
        wait_until(lambda: stage.age_s() > TIMEOUT_S + 0.5, "their time is over", WITHIN_S)
        gate.touch()
        # Then they are dropped, and the other client has its answer
        assert int(first.result()["value"]) == 1
        wait_until(lambda: not stage.unfinished(), "they are dropped", WITHIN_S)
    assert set(stage.computed()) == {1}


def test_a_host_that_stood_still_past_its_lease_changes_nothing_with_its_late_results(
    stage: Stage, recovered: Callable[[float], None]
) -> None:
    hosts, gate = [stage.host(), stage.host()], stage.gate()
    with stage.client() as client:
        # Given a request that one of two hosts computes
        handle = client.submit("gate", {"n": 7, "gate": str(gate)})
        [late] = stage.entered(gate)
        [still] = [host for host in hosts if host.runs(late)]
        [awake] = [host for host in hosts if host is not still]
        # When that host stands still until the other one has taken over and has answered
        paused_s = time.monotonic()
        still.pause()
        _, second = stage.entered(gate, 2)
        gate.touch()
        assert int(handle.result()["pid"]) == second
        recovered(paused_s)
        [key] = stage.redis.scan_iter(match=stage.broker.keys.reply("*").replace("{", "[{]"))
        reply = stage.redis.get(key)
        # And then it goes on, and answers too
        still.resume()
        wait_until(lambda: stage.computed()[7] == 2, "it has computed it as well", WITHIN_S)
        stage.wait_ready(still)
        assert awake.stop() == 0
        assert int(client.infer("work", {"n": 8, "act": ""})["pid"]) == late
    # Then the answer is that of the first finisher, and nothing was counted twice
    assert stage.redis.get(key) == reply
    assert stage.letters() == []
    assert stage.again() == 1


def test_a_worker_that_computes_longer_than_its_lease_keeps_its_work(stage: Stage) -> None:
    # Given two workers, so that one could take over from the other
    stage.host(procs=2)
    gate = stage.gate()
    with stage.client() as client:
        handle = client.submit("gate", {"n": 1, "gate": str(gate)})
        [holder] = stage.entered(gate)
        # When one computes for twice as long as the lease
        wait_until(lambda: stage.pending()[0]["time_since_delivered"] > 2000 * LEASE_S, "two leases have passed")
        # Then it has kept the entry
        [entry] = stage.pending()
        assert entry["times_delivered"] == 1
        gate.touch()
        assert int(handle.result()["pid"]) == holder
    assert stage.computed() == {1: 1}
