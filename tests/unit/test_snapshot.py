"""What `status` reads, on a stand-in for Redis: only plain commands, no script."""

from __future__ import annotations

import fakeredis
import msgpack
import pytest

from common.keys import GROUP, POOLS, PoolKeys
from gateway.admin.pools import Admin


@pytest.fixture
def redis() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis(version=(7,))


@pytest.fixture
def keys(redis: fakeredis.FakeRedis) -> PoolKeys:
    """A pool that was started and has nothing to do."""
    keys = PoolKeys("p")
    redis.sadd(POOLS, "p")
    for stream in keys.streams:
        redis.xgroup_create(stream, GROUP, "0", mkstream=True)
    return keys


def describe(redis: fakeredis.FakeRedis, keys: PoolKeys, consumer: str, lease_ms: int, **about: object) -> None:
    seconds, micros = redis.time()
    redis.zadd(keys.leases, {consumer: seconds * 1000 + micros // 1000 + lease_ms})
    redis.hset(keys.workers, consumer, msgpack.packb(about))


def test_a_broker_on_which_nothing_was_started_has_no_pools(redis: fakeredis.FakeRedis) -> None:
    assert Admin(redis).snapshot().pools == ()


def test_backlog_is_told_by_priority_and_what_workers_hold_is_in_flight(
    redis: fakeredis.FakeRedis, keys: PoolKeys
) -> None:
    for priority, count in zip(keys.streams, (1, 1, 0, 0, 1), strict=False):
        for _ in range(count):
            redis.xadd(priority, {"d": b"x"})
    redis.xreadgroup(GROUP, "w", {keys.streams[1]: ">"}, count=1)

    [pool] = Admin(redis).snapshot().pools

    assert pool.backlog == {"high": 1, "normal": 2, "low": 0}
    assert pool.in_flight == 1
    assert pool.oldest_ms is not None
    assert pool.oldest_ms >= 0


def test_a_worker_is_live_until_its_lease_ends(redis: fakeredis.FakeRedis, keys: PoolKeys) -> None:
    describe(redis, keys, "alive", 5000, device="cpu", rows=7)
    describe(redis, keys, "gone", -5000)

    [pool] = Admin(redis).snapshot().pools
    workers = {worker.name: worker for worker in pool.workers}

    assert (workers["alive"].live, workers["gone"].live) == (True, False)
    assert workers["alive"].about == {"device": "cpu", "rows": 7}
