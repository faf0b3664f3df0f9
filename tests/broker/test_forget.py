"""forget: a pool that nobody serves is removed in one step, and never one with a worker or, unasked, with work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from common.broker import Broker
from common.errors import ConfigError
from common.keys import POOLS
from common.scripts import Forgotten
from gateway.admin.forget import forget
from tests.support.leaks import keys_of
from tests.support.operations import NORMAL, request, submit

if TYPE_CHECKING:
    import redis


def test_a_pool_without_workers_goes_with_all_that_it_kept(own_redis: redis.Redis, own_broker: Broker) -> None:
    own_broker.renew(1000, [("gone", b"about")])
    own_broker.renew(0, [("gone", b"")])
    own_broker.change_limits({"tenant": 5})
    own_broker.steer("m", b"", b"plan")
    own_broker.hold_back(["m:2"], 1)
    own_broker.give_order(b"order")

    assert forget(own_redis, "own") == Forgotten(True, 0, 0, 0)

    assert keys_of(own_redis, "own") == set()
    assert own_redis.smembers(POOLS) == set()


def test_a_pool_in_which_a_worker_lives_stays_even_by_force(own_redis: redis.Redis, own_broker: Broker) -> None:
    own_broker.renew(60_000, [("here", b"about")])
    before = keys_of(own_redis, "own")

    with pytest.raises(ConfigError, match="pool 'own' has 1 live workers; stop them first"):
        forget(own_redis, "own", force=True)

    assert keys_of(own_redis, "own") == before


def test_unfinished_work_and_dead_letters_go_only_by_force(own_redis: redis.Redis, own_broker: Broker) -> None:
    submit(own_broker, request("id1", NORMAL))
    own_redis.xadd(own_broker.keys.dead, {"d": b"letter"})

    with pytest.raises(ConfigError, match="has 1 unfinished requests and 1 dead letters; they are lost with --force"):
        forget(own_redis, "own")
    assert own_redis.xlen(own_broker.keys.streams[NORMAL]) == 1

    assert forget(own_redis, "own", force=True) == Forgotten(True, 0, 1, 1)
    assert own_redis.smembers(POOLS) == set()


def test_a_pool_that_was_never_started_is_told_with_those_that_were(own_redis: redis.Redis, own_broker: Broker) -> None:
    with pytest.raises(ConfigError, match="no pool 'onw' was ever started on this broker; there is own"):
        forget(own_redis, "onw")
