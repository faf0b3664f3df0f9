"""What is stored beside a request that is then refused: it goes with the refusal."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import redis

from common.broker import Broker
from common.errors import Overloaded
from gateway import AsyncClient, Client
from gateway.payload import INLINE_UP_TO
from tests.support.leaks import keys_of
from tests.support.operations import submit, unfinished
from tests.support.waiting import wait_until

LARGE = np.zeros(INLINE_UP_TO, np.uint8)


@pytest.fixture
def full(broker: Broker) -> Broker:
    """A pool that takes no more."""
    broker.set_limits(backlog=1)
    submit(broker, "first")
    return broker


def payloads(client: redis.Redis, pool: str) -> list[str]:
    return [key for key in keys_of(client, pool) if ":payload:" in key]


def test_a_refused_requests_payload_is_deleted(
    redis_url: str, redis_client: redis.Redis, pool: str, full: Broker
) -> None:
    with Client(redis_url, pool=pool) as client, pytest.raises(Overloaded):
        client.infer("m", LARGE)

    assert payloads(redis_client, pool) == []


def test_an_asyncio_client_deletes_it_too(redis_url: str, redis_client: redis.Redis, pool: str, full: Broker) -> None:
    async def refused() -> None:
        async with AsyncClient(redis_url, pool=pool) as client:
            with pytest.raises(Overloaded):
                await client.infer("m", LARGE)

    asyncio.run(refused())

    assert payloads(redis_client, pool) == []


def test_the_payloads_of_what_was_admitted_before_it_stay(
    redis_url: str, redis_client: redis.Redis, pool: str, broker: Broker
) -> None:
    broker.set_limits(backlog=2)
    with Client(redis_url, pool=pool) as client:
        for _ in range(2):
            client.submit("m", LARGE)
        wait_until(lambda: unfinished(redis_client, broker) == [0, 2, 0], "two are admitted")

        with pytest.raises(Overloaded):
            client.infer("m", LARGE)

        assert len(payloads(redis_client, pool)) == 2
