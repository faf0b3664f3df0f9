"""Redis that restarts, forgets, stands still, fills up, or will not be written to."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.embedded import EmbeddedRedis, free_port
from common.errors import DeadlineExceeded
from common.scripts import SCRIPTS
from gateway import Client, Handle
from tests.faults.stage import LEASE_S, WITHIN_S, Stage, stage_on
from tests.support.deployments import Server, Single
from tests.support.proxy import proxy_to
from tests.support.waiting import wait_until

BATCH = 8
#: Under load: enough that each accident meets some of them.
MANY = 600


def submit_gated(stage: Stage, client: Client) -> tuple[Path, list[Handle]]:
    """Requests of which a worker holds all, and computes the first, until the gate is opened."""
    gate = stage.gate()
    handles = [client.submit("gate", {"n": number, "gate": str(gate)}) for number in range(BATCH)]
    stage.entered(gate)
    wait_until(lambda: len(stage.pending()) == BATCH, "all are held", WITHIN_S)
    return gate, handles


def numbers(handles: list[Handle]) -> list[int]:
    return [int(handle.result()["value"]) for handle in handles]


def doubled_under(stage: Stage, client: Client, accident: Callable[[], object]) -> list[int]:
    """The answers to MANY requests, while the accident happens again and again."""
    answers = []
    requests = ({"n": number, "act": ""} for number in range(MANY))
    with accidents(accident):
        for answer in client.map("work", requests, window=64):
            answers.append(int(answer["value"]))
    return answers


DOUBLES = [2 * number for number in range(MANY)]


@contextmanager
def accidents(happen: Callable[[], object], every_s: float = 0.1) -> Iterator[None]:
    """`happen()` at once and then again and again, from a thread, while the context is open."""
    over, begun = threading.Event(), threading.Event()

    def run() -> None:
        while not over.is_set():
            happen()
            begun.set()
            over.wait(every_s)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert begun.wait(WITHIN_S)
        yield
    finally:
        over.set()
        thread.join()


# It goes away and comes back


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
def test_a_redis_that_restarts_with_its_append_only_file_loses_nothing(
    own_stage: Stage, single: Single, number: int, recovered: Callable[[float], None]
) -> None:
    own_stage.host()
    with own_stage.client() as client:
        gate, handles = submit_gated(own_stage, client)
        # The file is written each second; what is younger may be gone.
        own_stage.redis.execute_command("WAITAOF", 1, 0, 5000) if _has_waitaof(own_stage) else _synced(own_stage)

        fell_s = time.monotonic()
        single.lose_primary(number)
        gate.touch()

        assert numbers(handles) == list(range(BATCH))
        recovered(fell_s)
    assert own_stage.letters() == []
    assert own_stage.again() == 0


def _has_waitaof(stage: Stage) -> bool:
    version = str(stage.redis.info("server")["redis_version"])
    return int(version.split(".")[0]) >= 8 or version >= "7.2"


def _synced(stage: Stage) -> None:
    wait_until(lambda: stage.redis.info("persistence")["aof_pending_bio_fsync"] == 0, "the file is written")


def test_a_redis_that_restarts_empty_gets_its_work_again_from_the_clients(
    tmp_path: Path, recovered: Callable[[float], None]
) -> None:
    with EmbeddedRedis() as server, stage_on(server.url, tmp_path) as stage:
        stage.host()
        with stage.client() as client:
            gate, handles = submit_gated(stage, client)

            fell_s = time.monotonic()
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            server.start()
            gate.touch()

            assert numbers(handles) == list(range(BATCH))
            recovered(fell_s)
        # What the worker held, it has computed for a Redis that knew nothing of it.
        assert stage.again() <= BATCH


@pytest.mark.slow
def test_a_redis_that_was_flushed_gets_its_work_again_from_the_clients(
    own_stage: Stage, recovered: Callable[[float], None]
) -> None:
    own_stage.host()
    with own_stage.client() as client:
        gate, handles = submit_gated(own_stage, client)

        fell_s = time.monotonic()
        own_stage.redis.flushall()
        gate.touch()

        assert numbers(handles) == list(range(BATCH))
        recovered(fell_s)
    assert own_stage.again() <= BATCH


@pytest.mark.parametrize("share", [0.5, 1.5], ids=["less", "more"])
def test_a_redis_that_stands_still_for_less_or_more_than_the_lease_loses_nothing(
    own_stage: Stage, server: Server, share: float, recovered: Callable[[float], None]
) -> None:
    own_stage.host(procs=2)
    with own_stage.client() as client:
        gate, handles = submit_gated(own_stage, client)

        stand_still(server, share * LEASE_S)
        awake_s = time.monotonic()
        gate.touch()

        assert numbers(handles) == list(range(BATCH))
        recovered(awake_s)
    assert own_stage.letters() == []
    assert own_stage.again() <= (0 if share < 1 else BATCH)


def stand_still(server: Server, seconds: float) -> None:
    server.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(seconds)  # The fault itself: nothing happens meanwhile that could be waited for.
    finally:
        server.process.send_signal(signal.SIGCONT)


# It cuts connections, or forgets scripts


def test_connections_that_are_killed_under_load_lose_and_double_nothing(own_stage: Stage) -> None:
    own_stage.host()
    with own_stage.client() as client:
        kill = ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        assert doubled_under(own_stage, client, lambda: own_stage.redis.execute_command(*kill)) == DOUBLES
    assert own_stage.letters() == []
    assert own_stage.again() == 0


def test_scripts_that_are_forgotten_under_load_are_sent_again(own_stage: Stage) -> None:
    own_stage.host()
    with own_stage.client() as client:
        assert doubled_under(own_stage, client, own_stage.redis.script_flush) == DOUBLES

        shas = [script.sha for script in SCRIPTS if script.name in ("submit", "take", "complete")]
        client.infer("work", {"n": 0, "act": ""})
        wait_until(lambda: all(own_stage.redis.script_exists(*shas)), "they are there again")
    assert own_stage.again() == 1  # number 0, which was asked for twice


@pytest.mark.slow
def test_a_half_open_connection_is_given_up_and_the_work_is_done_over_a_new_one(
    own_stage: Stage, server: Server, recovered: Callable[[float], None]
) -> None:
    # Given a host and a client that reach Redis through something that may drop their packets
    with proxy_to(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        own_stage.host(url=url)
        with own_stage.client(url) as client:
            assert int(client.infer("work", {"n": 1, "act": ""})["value"]) == 2
            # When all that is connected is cut off, and no end is told
            cut_s = time.monotonic()
            proxy.lose()
            # Then what is asked next is answered
            assert int(client.infer("work", {"n": 2, "act": ""})["value"]) == 4
            recovered(cut_s)
        own_stage.hosts[0].end()
    assert own_stage.again() == 0


# It takes no writes


def test_a_full_redis_lets_work_be_finished_and_refuses_new_work_until_there_is_room(own_stage: Stage) -> None:
    own_stage.host()
    redis = own_stage.redis
    with own_stage.client() as client:
        # Given requests that a worker holds
        gate, handles = submit_gated(own_stage, client)
        # When Redis is full, and evicts nothing
        redis.set("ballast", b"x" * (8 << 20))
        redis.config_set("maxmemory", "4mb")
        # Then new work is refused for as long as its client waits
        with pytest.raises(DeadlineExceeded, match=r"used memory > 'maxmemory'"):
            client.infer("work", {"n": 100, "act": ""}, timeout=1.0)
        # And what was admitted is finished
        gate.touch()
        assert numbers(handles) == list(range(BATCH))
        # And once there is room all goes on
        redis.config_set("maxmemory", "0")
        redis.delete("ballast")
        assert int(client.infer("work", {"n": 101, "act": ""})["value"]) == 202
    assert own_stage.letters() == []
    assert own_stage.again() == 0


def test_a_policy_that_may_evict_work_is_warned_of_at_the_start(tmp_path: Path) -> None:
    lines = ["maxmemory 100mb", "maxmemory-policy allkeys-lru"]
    with EmbeddedRedis(config=lines) as server, stage_on(server.url, tmp_path) as stage:
        host = stage.host()

        assert re.search(r"maxmemory-policy 'allkeys-lru'; set it to 'noeviction'", host.printed)


def test_a_master_that_has_become_a_read_only_replica_is_waited_for(own_stage: Stage) -> None:
    own_stage.host()
    with own_stage.client() as client:
        gate, handles = submit_gated(own_stage, client)

        own_stage.redis.execute_command("REPLICAOF", "127.0.0.1", free_port())
        gate.touch()
        with pytest.raises(DeadlineExceeded, match=r"read only replica"):
            client.infer("work", {"n": 100, "act": ""}, timeout=1.0)
        own_stage.redis.execute_command("REPLICAOF", "NO", "ONE")

        assert numbers(handles) == list(range(BATCH))
    assert own_stage.letters() == []
