"""Connections whose packets are dropped: the first that is found dead tells on all the others."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from common.connect import broker_errors, connect, connect_async
from common.errors import BrokerUnavailable
from common.halfopen import UNHEARD_S
from tests.support.deployments import Single
from tests.support.proxy import Proxy, proxy_to

#: For a reply: no test need wait for the usual ten seconds.
TIMEOUT_S = 0.5
CONNECTIONS = 3


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with Single() as single:
        yield single.primary().port


@pytest.fixture
def proxy(port: int) -> Iterator[Proxy]:
    with proxy_to(port) as proxy:
        yield proxy


@pytest.fixture
def client_of(proxy: Proxy) -> Iterator[Callable[[], Any]]:
    """Makes clients with some connections each, all of them idle."""
    clients = []

    def make() -> Any:
        client = connect(f"redis://127.0.0.1:{proxy.port}", TIMEOUT_S)
        clients.append(client)
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            # Each waits in a connection of its own.
            list(threads.map(lambda _: client.execute_command("BLPOP", "nothing", 0.1), range(CONNECTIONS)))
        return client

    yield make
    for client in clients:
        client.close()


def ping(client: Any) -> bool:
    with broker_errors():
        return bool(client.execute_command("PING"))


def test_after_one_dead_connection_no_idle_one_of_the_process_is_waited_for(
    proxy: Proxy, client_of: Callable[[], Any]
) -> None:
    one, other = client_of(), client_of()
    proxy.lose()

    with pytest.raises(BrokerUnavailable):
        ping(one)

    assert [ping(client) for client in (one, other) for _ in range(CONNECTIONS)] == [True] * 2 * CONNECTIONS


def test_the_commands_of_a_pipeline_find_no_dead_connection_either(proxy: Proxy, client_of: Callable[[], Any]) -> None:
    client = client_of()
    with client.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("PING")
        pipeline.execute()
    proxy.lose()
    with pytest.raises(BrokerUnavailable):
        ping(client)

    assert ping(client)
    with client.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("PING")
        assert pipeline.execute() == [True]


def test_an_asyncio_client_hears_of_it_too(proxy: Proxy, client_of: Callable[[], Any]) -> None:
    async def story() -> bool:
        async with connect_async(f"redis://127.0.0.1:{proxy.port}") as client:
            await client.execute_command("PING")
            blocking = client_of()
            proxy.lose()
            with pytest.raises(BrokerUnavailable):
                ping(blocking)
            return bool(await asyncio.wait_for(client.execute_command("PING"), 5.0))

    assert asyncio.run(story())


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")
def test_the_kernel_gives_up_what_nobody_acknowledges_before_a_reply_is_overdue(client_of: Callable[[], Any]) -> None:
    connections = client_of()._kept

    told = {one._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for one in connections}
    assert told == {UNHEARD_S * 1000}
    assert all(one._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for one in connections)
