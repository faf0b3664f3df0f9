"""What is wrong stands in the log: soon, once, and with the name of the worker."""

from __future__ import annotations

import os
import re
import signal
import time

import msgpack
import pytest

from common.errors import ModelError
from tests.faults.stage import WITHIN_S, Host, Stage
from tests.support.deployments import Server
from tests.support.waiting import wait_until

#: More tries than one, by the pauses between them.
AWAY_S = 1.5
MANY = 20


def lines(host: Host, text: str) -> list[str]:
    return [line for line in host.printed.splitlines() if text in line]


def test_a_model_that_fails_again_and_again_has_one_line_with_its_worker_version_and_error(stage: Stage) -> None:
    host = stage.host()
    [name] = (name.decode() for name in stage.redis.hkeys(stage.broker.keys.workers))
    with stage.client() as client:
        for number in range(MANY):
            with pytest.raises(ModelError, match="this item is bad"):
                client.infer("work", {"n": number, "act": "raise"})

    [line] = lines(host, "this item is bad")
    assert re.search(rf" ERROR +\d+ {re.escape(name)} .*: model 'work:1' failed on a request: ", line)


def test_a_redis_that_is_away_has_one_line_and_one_when_it_is_back(own_stage: Stage, server: Server) -> None:
    host = own_stage.host()
    fell_s = time.monotonic()
    server.end(signal.SIGKILL)
    wait_until(lambda: lines(host, "no entries for now"), "the worker says it", WITHIN_S)
    wait_until(lambda: time.monotonic() - fell_s > AWAY_S, "it has tried again")
    server.start()
    wait_until(lambda: lines(host, "Redis gives entries again"), "the worker says it", WITHIN_S)

    assert len(lines(host, "no entries for now")) == 1
    assert len(lines(host, "Redis gives entries again")) == 1


def test_the_requests_of_a_dead_worker_have_one_line_with_its_name_and_their_number(stage: Stage) -> None:
    # Given a worker that holds requests, and another one
    host, gate = stage.host(procs=2), stage.gate()
    with stage.client() as client:
        handles = [client.submit("gate", {"n": number, "gate": str(gate)}) for number in range(MANY)]
        [victim, *_] = stage.entered(gate)
        wait_until(lambda: len(stage.pending()) == MANY, "all are held", WITHIN_S)
        held = _held_by(stage, victim)
        # When it is killed
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: not host.runs(victim), "it has ended")
        gate.touch()
        for handle in handles:
            handle.result()
    # Then whoever takes over from it says so once; its successor may be another one
    [name, count] = held
    told = lines(host, f"worker {name} let its lease run out; ")
    assert 1 <= len(told) <= 2
    assert told[0].endswith(f"; {count} requests taken over")


def _held_by(stage: Stage, pid: int) -> tuple[str, int]:
    """A worker's name, and how many entries are in its hands."""
    told = stage.redis.hgetall(stage.broker.keys.workers)
    [name] = (name for name, about in told.items() if about and msgpack.unpackb(about)["pid"] == pid)
    return name.decode(), sum(entry["consumer"] == name for entry in stage.pending())
