"""Servers that one test may flush, fill up or stop: never the one that all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from common.broker import Broker
from common.connect import connect
from common.embedded import EmbeddedRedis
from common.errors import BrokerUnavailable
from tests.support.operations import submit

if TYPE_CHECKING:
    import redis


@pytest.fixture(scope="module")
def own_url() -> Iterator[str]:
    """A server of this file's own."""
    with EmbeddedRedis() as server:
        yield server.url


@pytest.fixture
def own_redis(own_url: str) -> Iterator[redis.Redis]:
    """A connection to it; what the last test left is wiped."""
    client = connect(own_url)
    client.flushall()
    yield client
    client.config_set("maxmemory", 0)
    client.close()


@pytest.fixture
def own_broker(own_redis: redis.Redis) -> Broker:
    broker = Broker(own_redis, "own")
    broker.create_groups()
    return broker


@pytest.fixture
def full_redis(own_broker: Broker, own_redis: redis.Redis) -> tuple[Broker, redis.Redis]:
    """A pool with ten waiting entries on a Redis that has reached its maxmemory and evicts nothing."""
    submit(own_broker, *(f"id{number}" for number in range(10)))
    own_redis.config_set("maxmemory", 1)
    with pytest.raises(BrokerUnavailable, match="maxmemory"):
        submit(own_broker, "one more")
    return own_broker, own_redis
