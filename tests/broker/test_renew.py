"""renew: leases in Redis's own clock, and what operators and clients see of the workers."""

from __future__ import annotations

from common.scripts import PRESENCE_MS
from tests.support.operations import end_lease, lease, leased, submit, take, unfinished


def test_a_lease_ends_so_many_ms_after_redis_time(broker, redis_client):
    now = broker.renew(10_000, [("worker", b"")])

    seconds, micros = redis_client.time()
    assert 0 <= seconds * 1000 + micros // 1000 - now < 5_000
    assert redis_client.zscore(broker.keys.leases, "worker") == now + 10_000


def test_many_leases_are_renewed_in_one_call(broker, redis_client):
    now = broker.renew(10_000, [("one", b""), ("two", b"")])

    assert redis_client.zrange(broker.keys.leases, 0, -1, withscores=True) == [
        (b"one", now + 10_000),
        (b"two", now + 10_000),
    ]


def test_renewing_nothing_tells_the_time(broker, redis_client):
    assert broker.renew(10_000, []) > 0
    assert leased(redis_client, broker) == set()


def test_a_lease_of_zero_ms_has_ended_at_once(broker):
    lease(broker, "worker")
    assert broker.take("worker", (1, 1, 1)).live

    end_lease(broker, "worker")

    assert not broker.take("worker", (1, 1, 1)).live


def test_a_worker_is_described_until_nobody_has_renewed_for_a_minute(broker, redis_client):
    broker.renew(1_000, [("worker", b"packed")])

    assert redis_client.hgetall(broker.keys.workers) == {b"worker": b"packed"}
    assert PRESENCE_MS - 5_000 < redis_client.pttl(broker.keys.workers) <= PRESENCE_MS


def test_a_longer_lease_keeps_the_descriptions_longer(broker, redis_client):
    broker.renew(PRESENCE_MS, [("worker", b"packed")])

    assert redis_client.pttl(broker.keys.workers) > 5 * PRESENCE_MS


def test_models_stay_as_long_as_leases_are_renewed(broker, redis_client):
    broker.publish_models({"minilm:2": b"metadata", "echo:1": b"more"})
    redis_client.pexpire(broker.keys.models, 1_000)

    lease(broker, "worker")

    assert broker.models() == {"minilm:2": b"metadata", "echo:1": b"more"}
    assert redis_client.pttl(broker.keys.models) > PRESENCE_MS - 5_000


def test_workers_stay_alive_where_redis_takes_no_more(full_redis):
    broker, client = full_redis

    broker.renew(10_000, [("worker", b"a worker that was not there before")])

    assert len(take(broker, shares=(0, 3, 0))) == 3
    assert client.hget(broker.keys.workers, "worker")
    assert unfinished(client, broker) == [0, 10, 0]


def test_a_pool_that_serves_nothing_has_no_models(broker):
    submit(broker, "a")

    assert broker.models() == {}
