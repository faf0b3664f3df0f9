"""The supervisor when Redis is away, hangs, forgets everything, or will not do."""

from __future__ import annotations

import os
import signal
import socketserver
import time
from contextlib import contextmanager
from functools import partial
from threading import Thread

import pytest

from common.broker import Broker
from common.connect import connect
from common.embedded import EmbeddedRedis
from common.errors import ConfigError
from common.keys import GROUP, POOLS
from inference_worker.supervision.events import (
    BrokerBack,
    BrokerForgot,
    BrokerFull,
    BrokerHasRoom,
    BrokerLost,
    Draining,
    Exited,
    Ready,
    Started,
    Warned,
)
from inference_worker.supervision.heartbeat import Heartbeat
from inference_worker.supervision.link import MEMORY_EVERY_S, Link
from inference_worker.supervision.presence import Presence
from tests.support.supervised import Supervised, alive, fake, plans
from tests.support.waiting import wait_until

DENIED = "Redis refuses the user, the password or a permission of the broker URL: "


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


@pytest.fixture
def guarded_redis():
    """A server that asks for a user and a password, its own URL, and a client of its administrator."""
    with EmbeddedRedis(tcp=True) as server:
        admin = connect(server.url)
        admin.execute_command("ACL", "SETUSER", "worker", "on", ">old", "~*", "&*", "+@all")
        place = server.url.rpartition("@")[2]
        yield f"redis://worker:old@{place}", admin
        admin.close()


def rotate(admin, *rules):
    """Change the user, and cut the connections that were let in before."""
    admin.execute_command("ACL", "SETUSER", "worker", *rules)
    admin.execute_command("CLIENT", "KILL", "USER", "worker")


@pytest.mark.parametrize(
    ("taken", "given"),
    [
        (["resetpass", ">new"], [">old"]),
        (["off"], ["on"]),
        (["-@all"], ["+@all"]),
        (["-zadd"], ["+zadd"]),
    ],
    ids=["password", "user", "permission", "permission inside the script"],
)
def test_a_redis_that_lets_nobody_in_any_more_is_waited_for(guarded_redis, taken, given):
    url, admin = guarded_redis
    with Supervised(url, plans("guarded"), command=fake("good")) as it:
        it.wait_for(Ready)

        rotate(admin, *taken)
        wait_until(lambda: [one for one in it.of(BrokerLost) if one.error.startswith(DENIED)], "it says why")
        rotate(admin, *given)
        it.wait_for(BrokerBack)

        assert it.of(Exited) == []
        assert admin.zcard(Broker(admin, "guarded").keys.leases) == 1


def test_a_redis_that_never_let_us_in_ends_the_supervisor(guarded_redis):
    url, _ = guarded_redis
    with Supervised(url.replace("old", "misspelt"), plans("guarded"), command=fake("good")) as it:
        it.wait_for_end()

    assert isinstance(it.error, ConfigError)
    assert str(it.error).startswith(DENIED)


def test_a_server_that_hangs_for_one_pool_costs_no_other_pool_its_lease(own_redis):
    with EmbeddedRedis() as other:
        client = connect(own_redis.url)
        kept = Broker(client, "kept")
        # As two shards of a cluster would: each pool on a server of its own
        places = {"hung": other.url, "kept": own_redis.url}
        opened = {pool: partial(connect, url, socket_timeout_s=5.0) for pool, url in places.items()}
        links = {pool: Link(pool, opened[pool], 1500, time.monotonic) for pool in places}
        heartbeat = Heartbeat(links, 0.3, lambda event: None)
        heartbeat.tell({pool: Presence({"consumer": b"about"}) for pool in places})
        heartbeat.start()
        wait_until(lambda: client.exists(kept.keys.leases), "the lease is there")
        os.kill(other.pid, signal.SIGSTOP)
        try:
            began_ms = until_ms = client.zscore(kept.keys.leases, "consumer")
            while until_ms < began_ms + 3000:
                until_ms = wait_until(lambda: newer(client, kept, until_ms), "the lease is renewed", 1.5)  # noqa: B023
        finally:
            os.kill(other.pid, signal.SIGCONT)
            heartbeat.close(10.0)
        client.close()


def newer(client, broker, than_ms):
    until_ms = client.zscore(broker.keys.leases, "consumer")
    return until_ms if until_ms > than_ms else None


def test_the_bound_on_a_pools_backlog_is_there_again_after_a_wipe(own_redis):
    client = connect(own_redis.url)
    limits = Broker(client, "bounded").keys.limits
    with Supervised(own_redis.url, plans("bounded"), command=fake("good"), max_backlog=7) as it:
        it.wait_for(Ready)
        assert client.hget(limits, "backlog") == b"7"

        client.flushall()

        wait_until(lambda: client.hget(limits, "backlog") == b"7", "the bound is back")
    client.close()


def test_a_redis_that_may_evict_work_is_warned_of_once():
    with EmbeddedRedis(config=["maxmemory 50mb", "maxmemory-policy allkeys-lru"]) as server:
        groups = plans("one") + [plan for plan in plans("two", 2) if plan.placement.index == 1]
        with Supervised(server.url, groups, command=fake("good")) as it:
            it.wait_for(Ready, 2)

    (warning,) = it.of(Warned)
    assert "maxmemory-policy 'allkeys-lru'" in warning.text


def test_a_full_redis_is_told_once_and_once_when_it_has_room_again(own_redis):
    # Given a supervisor's link, with a clock of its own
    now_s = 0.0
    link = Link("full", partial(connect, own_redis.url), 60_000, lambda: now_s)
    presence = Presence({"consumer": b"about"})
    admin = connect(own_redis.url)

    def later():
        nonlocal now_s
        now_s += MEMORY_EVERY_S
        return [type(event) for event in link.beat(presence)]

    # When Redis has room, then none for two looks, and then room again
    said = [later()]
    admin.config_set("maxmemory", admin.info("memory")["used_memory"] // 2)
    said += [later(), later()]
    admin.config_set("maxmemory", "1gb")
    said += [later(), later()]
    # Then each is said once, and the lease is renewed all the time
    assert said == [[], [BrokerFull], [], [BrokerHasRoom], []]
    link.close()
    admin.close()


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


def test_a_child_that_was_never_ready_leaves_no_lease_behind_and_one_that_was_a_lapsed_one(own_redis):
    client = connect(own_redis.url)
    for manner, left in (("misconfigured", 0), ("good", 1)):
        keys = Broker(client, manner).keys
        with Supervised(own_redis.url, plans(manner), command=fake(manner)) as it:
            it.wait_for(Exited if manner == "misconfigured" else Ready)
            it.supervisor.stop()
            it.wait_for_end()

        assert client.zcard(keys.leases) == left
        assert client.hlen(keys.workers) == left
    client.close()


def test_a_redis_that_was_emptied_is_told_once_with_what_operators_had_set_there(own_redis):
    client = connect(own_redis.url)
    broker, now_s = Broker(client, "forgotten"), iter(range(0, 1000, 20))
    link = Link("forgotten", partial(connect, own_redis.url), 60_000, lambda: next(now_s), 7)
    here = Presence({"consumer": b"about"})
    link.beat(here)
    # Given settings that the supervisor has seen, and others that an operator cleared himself
    broker.steer("m", b"", b"plan")
    broker.change_limits({"tenant": 5})
    broker.hold_back(["m:2"], 1)
    assert forgotten(link.beat(here)) == []
    broker.clear_limits(["tenant"])
    assert forgotten(link.beat(here)) == []

    client.flushall()

    assert forgotten(link.beat(here)) == ["aliases and splits"]
    assert forgotten(link.beat(here)) == []
    # And another time it is told again
    broker.change_limits({"tenant": 5})
    link.beat(here)
    client.flushall()
    assert forgotten(link.beat(here)) == ["limits"]
    link.close()
    client.close()


def test_a_redis_that_was_emptied_is_told_again_what_was_unloaded_each_time(own_redis):
    client = connect(own_redis.url)
    broker, now_s = Broker(client, "unloaded"), iter(range(0, 1000, 20))
    link = Link("unloaded", partial(connect, own_redis.url), 60_000, lambda: next(now_s))
    here = Presence({"consumer": b"about"})
    link.beat(here)
    broker.hold_back(["m:2", "m:3"], 17)
    link.beat(here)
    # What an operator has loaded again is not held back any more
    broker.hold_no_more(["m:3"])
    link.beat(here)

    for _ in range(2):
        client.flushall()
        assert forgotten(link.beat(here)) == []
        assert broker.unloaded() == {"m:2": b"17"}
    link.close()
    client.close()


def test_a_redis_that_is_empty_but_for_what_operators_had_set_anew_is_not_told(own_redis):
    client = connect(own_redis.url)
    broker, now_s = Broker(client, "anew"), iter(range(0, 1000, 20))
    link = Link("anew", partial(connect, own_redis.url), 60_000, lambda: next(now_s))
    here = Presence({"consumer": b"about"})
    for _ in range(2):
        link.beat(here)
        broker.steer("m", b"", b"plan")

    client.flushall()
    broker.steer("m", b"", b"plan")

    assert forgotten(link.beat(here)) == []
    link.close()
    client.close()


def forgotten(events):
    return [event.gone for event in events if isinstance(event, BrokerForgot)]
