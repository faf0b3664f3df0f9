"""The clients on a Redis Cluster: a pool is one slot, and two pools are read by two connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest

from common.connect import connect
from common.embedded import EmbeddedRedis
from common.errors import ConfigError, InferenceError
from gateway import AsyncClient, Client, Result
from gateway.routing import Route, Routes
from tests.support.echo_worker import EchoWorker
from tests.support.waiting import wait_until

ROUTES = Routes([Route("one", model="first")], default="two")


@pytest.fixture
def cluster_url() -> Iterator[str]:
    """A cluster of one server that holds every slot."""
    server = start()
    with server, closing(connect(server.url)) as client:
        client.execute_command("CLUSTER ADDSLOTS", *range(16384))
        wait_until(lambda: client.cluster("INFO")["cluster_state"] == "ok", "the cluster is up")
        yield server.url.replace("redis://", "redis+cluster://").removesuffix("/0")


def start() -> EmbeddedRedis:
    """Until a port is found whose cluster port, 10,000 above it, exists and is free as well."""
    for _ in range(20):
        try:
            return EmbeddedRedis(tcp=True, config=["cluster-enabled yes"]).start()
        except ConfigError as error:
            refusal = error
    raise refusal


@pytest.fixture
def workers(cluster_url: str) -> Iterator[None]:
    with EchoWorker(cluster_url, "one"), EchoWorker(cluster_url, "two"):
        yield


def number_of(result: Result | InferenceError) -> int:
    assert isinstance(result, Result)
    return int(result["output"])


@pytest.mark.usefixtures("workers")
def test_a_client_uses_two_pools_at_once(cluster_url: str) -> None:
    with Client(cluster_url, routes=ROUTES) as client:
        handles = [client.submit(("first", "second")[number % 2], number) for number in range(100)]

        assert [number_of(handle.result(timeout=10)) for handle in handles] == list(range(100))
        assert number_of(client.infer("first", 7)) == 7


@pytest.mark.usefixtures("workers")
def test_an_async_client_uses_two_pools_at_once(cluster_url: str) -> None:
    async def story() -> list[int]:
        async with AsyncClient(cluster_url, routes=ROUTES) as client:
            handles = [await client.submit(("first", "second")[number % 2], number) for number in range(100)]
            return [number_of(await handle.result(timeout=10)) for handle in handles]

    assert asyncio.run(story()) == list(range(100))
