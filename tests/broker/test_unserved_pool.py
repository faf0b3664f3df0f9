"""submit where no worker has ever been: what waits for one lives as long as its clients, and is kept once one comes."""

from __future__ import annotations

import pytest

from common.broker import Broker
from common.scripts import Admitted
from tests.support.leaks import keys_of
from tests.support.operations import HIGH, LOW, NORMAL, finish, replies, request, submit, take, tenants, unfinished
from tests.support.waiting import wait_until

QUEUED, JOINED = Admitted.QUEUED, Admitted.JOINED


@pytest.fixture
def unserved(redis_client, pool) -> Broker:
    """A pool of which nothing exists yet."""
    return Broker(redis_client, pool)


def lives(client, broker) -> list[int]:
    """TTL in ms of the high, normal and low streams and of the tenants: -1 is for ever, -2 is not there."""
    return [client.pttl(key) for key in (*broker.keys.streams[:3], broker.keys.tenants)]


def test_a_pool_that_is_never_served_leaves_nothing_behind(unserved, redis_client, pool):
    submit(unserved, request("a", HIGH, "acme"), request("b"), lifetime_ms=50)

    wait_until(lambda: keys_of(redis_client, pool) == set(), "nothing of the pool is left")


def test_what_waited_is_kept_and_answered_once_a_worker_comes(unserved, redis_client):
    assert submit(unserved, request("a", HIGH, "acme"), request("b", LOW)) == [QUEUED, QUEUED]

    unserved.create_groups()

    assert lives(redis_client, unserved) == [-1, -1, -1, -1]
    first, second = take(unserved)
    unserved.complete([finish(first, "a", b"one"), finish(second, "b", b"two")])
    assert replies(redis_client, unserved) == [b"one", b"two"]
    assert tenants(redis_client, unserved) == {}


def test_whoever_asks_later_prolongs_it_for_all_and_nobody_shortens_it(unserved, redis_client):
    submit(unserved, request("a", HIGH, "acme"), lifetime_ms=5_000)
    submit(unserved, request("b", NORMAL), lifetime_ms=50_000)
    submit(unserved, request("c", HIGH), lifetime_ms=1_000)

    high, normal, low, counts = lives(redis_client, unserved)
    assert 40_000 < high <= 50_000
    assert abs(high - normal) < 1_000
    assert abs(high - counts) < 1_000
    assert low == -2


def test_whoever_joins_prolongs_it_too(unserved, redis_client):
    submit(unserved, "a", lifetime_ms=5_000)

    assert submit(unserved, "a", lifetime_ms=50_000) == [JOINED]

    assert lives(redis_client, unserved)[NORMAL] > 40_000


def test_what_has_expired_is_queued_anew_and_counted_once(unserved, redis_client):
    submit(unserved, request("a", tenant="acme"))
    keys = unserved.keys
    redis_client.delete(*keys.streams, keys.tenants, keys.lanes)  # as at the end of their TTL

    assert submit(unserved, request("a", tenant="acme")) == [QUEUED]

    assert unfinished(redis_client, unserved) == [0, 1, 0]
    assert tenants(redis_client, unserved) == {"acme": 1}


def test_a_served_pool_never_expires_whatever_is_submitted(broker, redis_client):
    submit(broker, request("a", HIGH, "acme"), request("b"))
    submit(broker, request("a", HIGH, "acme"), request("c", LOW))

    assert lives(redis_client, broker) == [-1, -1, -1, -1]


def test_a_stream_that_an_operator_deleted_from_a_served_pool_comes_back_for_good(broker, redis_client):
    submit(broker, request("a", HIGH, "acme"))
    redis_client.delete(broker.keys.streams[LOW])

    submit(broker, request("b", LOW), request("a", HIGH))

    assert lives(redis_client, broker) == [-1, -1, -1, -1]


def test_a_second_worker_makes_permanent_what_a_first_one_did_not(unserved, redis_client):
    """The group is there and the stream has a TTL: a Redis that was restored from such a moment, say."""
    unserved.create_groups()
    for stream in unserved.keys.streams:
        redis_client.pexpire(stream, 60_000)

    unserved.create_groups()

    assert lives(redis_client, unserved)[:3] == [-1, -1, -1]
