"""Counters that never drift: the streams' lengths, the tenants' counts, and nothing that stays for ever."""

from __future__ import annotations

import random
from threading import Thread

import pytest

from common.broker import Broker
from common.connect import connect
from common.scripts import Admitted
from tests.support.leaks import keys_of, leaked_keys, permanent_keys
from tests.support.operations import (
    HIGH,
    LOW,
    NORMAL,
    add_raw,
    end_lease,
    finish,
    inbox,
    lease,
    replies,
    request,
    submit,
    take,
    tenants,
    unfinished,
)


def test_the_streams_lengths_are_the_unfinished_work(broker, redis_client):
    submit(broker, request("h", HIGH), request("n"), request("m"), request("l", LOW))
    add_raw(redis_client, broker)
    assert unfinished(redis_client, broker) == [1, 3, 1]

    entries = take(broker)
    assert unfinished(redis_client, broker) == [1, 3, 1]

    broker.complete([finish(entries[0], "h"), finish(entries[-1], "l")])
    assert unfinished(redis_client, broker) == [0, 3, 0]


@pytest.mark.parametrize("streams", [(HIGH,), (NORMAL, LOW)])
def test_raw_producers_are_not_counted_against_a_tenant(streams, broker, redis_client):
    for stream in streams:
        add_raw(redis_client, broker, stream=stream)
    submit(broker, request("a", tenant="acme"))

    broker.complete([finish(entry, f"id{number}") for number, entry in enumerate(take(broker))])

    assert tenants(redis_client, broker) == {}
    assert unfinished(redis_client, broker) == [0, 0, 0]


def test_a_forged_tenant_never_takes_a_count_below_zero(broker, redis_client):
    for _ in range(5):
        add_raw(redis_client, broker, t="acme")
    add_raw(redis_client, broker, t="nobody")
    submit(broker, request("a", tenant="acme"))

    for number, entry in enumerate(take(broker)):
        broker.complete([finish(entry, f"id{number}")])
        assert all(count > 0 for count in tenants(redis_client, broker).values())

    assert tenants(redis_client, broker) == {}


def test_a_tenants_count_after_a_forgery_is_right_again_as_soon_as_it_is_idle(broker, redis_client):
    submit(broker, request("a", tenant="acme"))
    add_raw(redis_client, broker, t="acme")
    broker.complete([finish(entry, f"id{number}") for number, entry in enumerate(take(broker))])

    submit(broker, request("b", tenant="acme"), request("c", tenant="acme"))

    assert tenants(redis_client, broker) == {"acme": 2}


def test_a_crash_and_a_rescue_count_a_request_once(broker, redis_client):
    submit(broker, request("a", tenant="acme"))
    take(broker)
    end_lease(broker, "worker")
    lease(broker, "rescuer")
    rescued = broker.reclaim("rescuer", 10)[1]
    assert tenants(redis_client, broker) == {"acme": 1}

    broker.complete([finish(rescued[0], "a")])

    assert tenants(redis_client, broker) == {}


def test_an_idle_pool_keeps_only_its_permanent_keys_and_what_expires(broker, redis_client, pool):
    """A mixed workload: every operation, raw producers, large payloads, dead letters, two workers, one of them dead."""
    broker.set_limits(backlog=1_000, tenant=500)
    broker.publish_models({"minilm:2": b"metadata"})
    submit(broker, *(request(f"id{n}", n % 3, "acme" if n % 2 else "") for n in range(30)))
    submit(broker, "id1", "id2", "id2", client="other")
    key = broker.store_payload("large", b"large", 60_000)
    broker.submit([request("large")._replace(field="r", value=key)], inbox(broker), 60_000)
    add_raw(redis_client, broker, b"raw", t="acme")
    broker.cancel(inbox(broker), ["id3", "id4"])

    first = take(broker, "first", (4, 4, 4))
    broker.release("first", [entry.place for entry in first[:2]])
    end_lease(broker, "first")
    lease(broker, "second")
    entries = broker.reclaim("second", 50)[1] + broker.take("second", (50, 50, 50)).entries
    assert len(entries) == 32
    for number, entry in enumerate(entries):
        name = f"id{number}"
        broker.complete([finish(entry, name, keep_ms=0 if number % 4 else 60_000, dead="" if number % 5 else "poison")])

    assert unfinished(redis_client, broker) == [0, 0, 0]
    assert tenants(redis_client, broker) == {}
    assert leaked_keys(redis_client, pool) == []
    assert keys_of(redis_client, pool) & permanent_keys(pool)
    assert redis_client.ttl(broker.keys.waiters("large")) > 0


def test_many_clients_and_workers_at_once_lose_nothing_and_count_right(redis_url, broker, redis_client):
    names, each = ["client0", "client1", "client2"], 200
    answers: dict[str, list[object]] = {}

    def ask(name: str) -> None:
        connection = connect(redis_url)
        mine = Broker(connection, broker.pool)
        chance = random.Random(name)
        told: list[object] = []
        for start in range(0, each, 20):
            # A third of the ids are shared with the other clients.
            ids = [f"{'shared' if chance.random() < 0.33 else name}-{start + n}" for n in range(20)]
            batch = [request(one, chance.randrange(3), "acme", one.encode()) for one in ids]
            told += submit(mine, *batch, client=name)
        answers[name] = told
        connection.close()

    def work(name: str) -> None:
        connection = connect(redis_url)
        mine = Broker(connection, broker.pool)
        while len(answers) < len(names) or sum(unfinished(connection, mine)) > 0:
            lease(mine, name)
            entries = mine.take(name, (5, 5, 5)).entries
            mine.complete([finish(one, one.payload.decode(), one.payload) for one in entries])
        connection.close()

    threads = [Thread(target=ask, args=(name,)) for name in names]
    threads += [Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert tenants(redis_client, broker) == {}
    for name, told in answers.items():
        at_once = [answer for answer in told if isinstance(answer, bytes)]
        received = replies(redis_client, broker, name)
        assert len(received) + len(at_once) == each
        assert len({*received, *at_once}) == each
    assert sum(told.count(Admitted.QUEUED) for told in answers.values()) < len(names) * each
