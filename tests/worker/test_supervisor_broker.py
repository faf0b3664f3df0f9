"""The supervisor when Redis is away, hangs, forgets everything, or will not do."""

from __future__ import annotations

import os
import signal
import socketserver
import time
from contextlib import contextmanager
from threading import Thread

import pytest

from common.broker import Broker
from common.connect import connect
from common.embedded import EmbeddedRedis
from common.errors import ConfigError
from common.keys import GROUP, POOLS
from inference_worker.events import BrokerBack, BrokerLost, Draining, Exited, Ready, Started, Warned
from tests.support.supervised import Supervised, alive, fake, plans
from tests.support.waiting import wait_until


@pytest.fixture
def own_redis():
    """A server that a test may flush, stop and start."""
    with EmbeddedRedis(aof=True) as server:
        yield server


def test_a_redis_that_was_wiped_knows_leases_workers_models_and_groups_again_within_two_seconds(own_redis):
    client = connect(own_redis.url)
    broker = Broker(client, "wiped")
    with Supervised(own_redis.url, plans("wiped"), command=fake("good")) as it:
        it.wait_for(Ready)

        client.flushall()

        everything = (broker.keys.leases, broker.keys.workers, broker.keys.models, *broker.keys.streams, POOLS)
        wait_until(lambda: client.exists(*everything) == len(everything), "all keys are back", 2.0)
        wait_until(lambda: client.xinfo_groups(broker.keys.streams[0])[0]["name"] == GROUP.encode(), "the group")
    client.close()


def test_children_live_through_a_redis_that_is_away_and_are_known_to_it_again(own_redis):
    with Supervised(own_redis.url, plans("away"), command=fake("good")) as it:
        it.wait_for(Ready)

        os.kill(own_redis.pid, signal.SIGKILL)
        lost = it.wait_for(BrokerLost)
        own_redis.start()
        it.wait_for(BrokerBack)

        client = connect(own_redis.url)
        assert Broker(client, "away").models() == {"echo:1": b"metadata"}
        client.close()
        assert lost.pool == "away"
        assert len(it.of(BrokerLost)) == 1
        assert it.of(Exited) == []


def test_children_load_while_redis_is_away_and_are_ready_when_it_knows_them(own_redis):
    os.kill(own_redis.pid, signal.SIGKILL)
    with Supervised(own_redis.url, plans("late"), command=fake("good")) as it:
        it.wait_for(BrokerLost)
        it.wait_for(Started)
        assert it.of(Ready) == []

        own_redis.start()

        it.wait_for(Ready)


def test_a_redis_that_hangs_delays_neither_a_restart_nor_a_drain(own_redis):
    with Supervised(own_redis.url, plans("hung"), command=fake("good")) as it:
        it.wait_for(Ready)
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            os.kill(it.of(Started)[0].pid, signal.SIGKILL)
            it.wait_for(Started, 2)
            it.supervisor.stop()
            it.wait_for(Draining)
            it.wait_for_end()
            took = time.monotonic() - began
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)

    assert took < 5.0
    assert not any(alive(event.pid) for event in it.of(Started))


def test_a_redis_that_may_evict_work_is_warned_of_once():
    with EmbeddedRedis(config=["maxmemory 50mb", "maxmemory-policy allkeys-lru"]) as server:
        groups = plans("one") + [plan for plan in plans("two", 2) if plan.placement.index == 1]
        with Supervised(server.url, groups, command=fake("good")) as it:
            it.wait_for(Ready, 2)

    (warning,) = it.of(Warned)
    assert "maxmemory-policy 'allkeys-lru'" in warning.text


def test_a_redis_that_is_too_old_ends_the_supervisor_and_its_children():
    with old_redis("5.0.7") as url, Supervised(url, plans("old"), command=fake("good")) as it:
        it.wait_for_end()

    assert isinstance(it.error, ConfigError)
    assert str(it.error) == "Redis must be 6.2 or newer; the broker is 5.0.7"
    assert not any(alive(event.pid) for event in it.of(Started))


class Old(socketserver.StreamRequestHandler):
    """Answers as a server of that version would, as far as a greeting goes: no such server is at hand."""

    def handle(self):
        while head := self.rfile.readline():
            words = [self._word() for _ in range(int(head[1:]))]
            info = b"redis_version:" + self.server.version.encode()
            answer = b"$%d\r\n%s\r\n" % (len(info), info) if words[0] == b"INFO" else b"+OK\r\n"
            self.wfile.write(answer)

    def _word(self):
        return self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2]


@contextmanager
def old_redis(version):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Old) as server:
        server.version = version
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"redis://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_leases_of_several_pools_are_kept_each_in_its_own_pool(own_redis):
    client = connect(own_redis.url)
    groups = plans("one") + [plan for plan in plans("two", 2) if plan.placement.index == 1]
    with Supervised(own_redis.url, groups, command=fake("good")) as it:
        it.wait_for(Ready, 2)

        leased = {pool: client.zcard(Broker(client, pool).keys.leases) for pool in ("one", "two")}
        assert leased == {"one": 1, "two": 1}
    client.close()
