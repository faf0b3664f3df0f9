"""Redis goes away, forgets, comes back: nothing is lost, nothing hangs, nobody gets two answers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis

from common.connect import connect
from common.embedded import EmbeddedRedis
from common.errors import BrokerUnavailable, DeadlineExceeded, InferenceError
from gateway import AsyncClient, Client, Result
from gateway.routing import Route, Routes
from tests.support.echo_worker import EchoWorker
from tests.support.waiting import wait_until


@pytest.fixture
def observer(own_redis: EmbeddedRedis) -> Iterator[redis.Redis]:
    with closing(connect(own_redis.url)) as client:
        yield client


@pytest.fixture
def client(own_redis: EmbeddedRedis) -> Iterator[Client]:
    with Client(own_redis.url, pool="p") as client:
        yield client


def number_of(result: Result | InferenceError) -> int:
    assert isinstance(result, Result)
    return int(result["output"])


def queued(observer: redis.Redis) -> int:
    return int(observer.xlen("iw:{p}:normal"))


@contextmanager
def accidents(happen: object, every_s: float) -> Iterator[list[float]]:
    """`happen()` now and then, from a thread, while the context is open; when it did."""
    assert callable(happen)
    over, times = threading.Event(), []

    def run() -> None:
        while not over.wait(every_s):
            happen()
            times.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield times
    finally:
        over.set()
        thread.join()


def kill_connections(observer: redis.Redis) -> None:
    observer.execute_command("CLIENT", "KILL", "SKIPME", "yes")


# Redis forgets


def test_after_a_flush_all_unanswered_requests_come_back(
    own_redis: EmbeddedRedis, observer: redis.Redis, client: Client
) -> None:
    handles = [client.submit("echo", number) for number in range(100)]
    wait_until(lambda: queued(observer) == 100, "all wait in the stream")

    observer.flushall()
    with EchoWorker(own_redis.url, "p"):
        assert [number_of(handle.result(timeout=20)) for handle in handles] == list(range(100))


def test_after_a_flush_an_async_client_gets_its_answers(own_redis: EmbeddedRedis, observer: redis.Redis) -> None:
    async def story() -> list[int]:
        async with AsyncClient(own_redis.url, pool="p") as client:
            handles = [await client.submit("echo", number) for number in range(100)]
            while queued(observer) < 100:
                await asyncio.sleep(0.005)
            observer.flushall()
            with EchoWorker(own_redis.url, "p"):
                return [number_of(await handle.result(timeout=20)) for handle in handles]

    assert asyncio.run(story()) == list(range(100))


# Connections break


@pytest.mark.parametrize("ordered", [True, False])
def test_under_load_broken_connections_lose_and_double_nothing(
    own_redis: EmbeddedRedis, observer: redis.Redis, client: Client, ordered: bool
) -> None:
    with EchoWorker(own_redis.url, "p"), accidents(lambda: kill_connections(observer), 0.1) as times:
        numbers = [number_of(one) for one in client.map("echo", range(5000), ordered=ordered)]
        wait_until(lambda: times, "a connection was broken")

    assert sorted(numbers) == list(range(5000))


def test_many_threads_survive_broken_connections(
    own_redis: EmbeddedRedis, observer: redis.Redis, client: Client
) -> None:
    with (
        EchoWorker(own_redis.url, "p"),
        accidents(lambda: kill_connections(observer), 0.05) as times,
        ThreadPoolExecutor(16) as threads,
    ):
        results = threads.map(lambda number: client.infer("echo", number), range(1500))
        assert [number_of(result) for result in results] == list(range(1500))
        wait_until(lambda: times, "a connection was broken")


def test_many_tasks_survive_broken_connections(own_redis: EmbeddedRedis, observer: redis.Redis) -> None:
    async def story() -> list[int]:
        async with AsyncClient(own_redis.url, pool="p") as client:
            return [number_of(one) async for one in client.map("echo", range(5000))]

    with EchoWorker(own_redis.url, "p"), accidents(lambda: kill_connections(observer), 0.1) as times:
        assert asyncio.run(story()) == list(range(5000))
        wait_until(lambda: times, "a connection was broken")


def test_a_connection_that_breaks_while_idle_is_not_noticed(
    own_redis: EmbeddedRedis, observer: redis.Redis, client: Client
) -> None:
    with EchoWorker(own_redis.url, "p"):
        for number in range(5):
            assert number_of(client.infer("echo", number)) == number
            kill_connections(observer)


# The server ends and starts again


def test_a_server_that_is_started_again_gets_all_that_is_unanswered(own_redis: EmbeddedRedis, client: Client) -> None:
    with EchoWorker(own_redis.url, "p"):
        assert number_of(client.infer("echo", -1)) == -1
    handles = [client.submit("echo", number) for number in range(50)]
    kill_server(own_redis)
    late = [client.submit("echo", number) for number in range(50, 60)]

    own_redis.start()

    with EchoWorker(own_redis.url, "p"):
        assert [number_of(handle.result(timeout=20)) for handle in handles + late] == list(range(60))


def test_a_server_that_restarts_under_load_loses_nothing(own_redis: EmbeddedRedis, client: Client) -> None:
    def restart() -> None:
        kill_server(own_redis)
        own_redis.start()

    with EchoWorker(own_redis.url, "p"), accidents(restart, 0.3) as times:
        assert [number_of(one) for one in client.map("echo", range(6000))] == list(range(6000))
        wait_until(lambda: times, "the server was restarted")


def test_a_client_may_be_there_before_its_server(tmp_path: Path) -> None:
    with EmbeddedRedis() as server:
        url = server.url
        kill_server(server)
        with Client(url, pool="p") as client, ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(client.infer, "echo", 7)
            wait_until(lambda: threading.active_count() > 2, "the client tries")
            server.start()
            with EchoWorker(url, "p"):
                assert number_of(waiting.result(timeout=20)) == 7


def test_a_broker_that_was_never_reached_is_named_without_its_password(tmp_path: Path) -> None:
    with Client(f"unix://:secret@{tmp_path}/none.sock", pool="p") as client:
        start = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=r"Redis at unix://:\*\*\*@.* was not reached within 0\.3 s"):
            client.infer("echo", 1, timeout=0.3)

    assert time.monotonic() - start < 1.0


def test_a_deadline_passes_while_the_server_is_away(own_redis: EmbeddedRedis, client: Client) -> None:
    with EchoWorker(own_redis.url, "p"):
        client.infer("echo", 1)
    kill_server(own_redis)

    with pytest.raises(DeadlineExceeded, match="does not answer"):
        client.infer("echo", 1, timeout=0.3)


# The server hangs


def test_a_deadline_passes_on_time_while_the_server_hangs(own_redis: EmbeddedRedis, client: Client) -> None:
    with EchoWorker(own_redis.url, "p"):
        client.infer("echo", 1)
    with hanging(own_redis):
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.infer("echo", 1, timeout=0.3)
        handle = client.submit("echo", 1, timeout=0.3)
        wait_until(handle.done, "its time is over", within_s=1.0)

        assert time.monotonic() - start < 1.0


def test_closing_while_the_server_hangs_is_quick(own_redis: EmbeddedRedis) -> None:
    client = Client(own_redis.url, pool="p")
    with EchoWorker(own_redis.url, "p"):
        client.infer("echo", 1)
    with ThreadPoolExecutor(2) as threads, hanging(own_redis):
        waiting = [threads.submit(client.infer, "echo", 1) for _ in range(2)]
        wait_until(lambda: "2 unanswered" in repr(client), "both wait")
        start = time.monotonic()

        client.close()

        assert time.monotonic() - start < 1.0
        for one in waiting:
            assert one.exception(timeout=1) is not None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("inference-client")]


def test_an_async_client_closes_quickly_while_the_server_hangs(own_redis: EmbeddedRedis) -> None:
    async def story() -> None:
        client = AsyncClient(own_redis.url, pool="p")
        with EchoWorker(own_redis.url, "p"):
            await client.infer("echo", 1)
        with hanging(own_redis):
            waiting = asyncio.create_task(client.infer("echo", 1))
            await asyncio.sleep(0.05)
            start = time.monotonic()
            await client.close()
            assert time.monotonic() - start < 1.0
            with pytest.raises(InferenceError):
                await waiting
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(story())


# A pool that comes into use later


def test_replies_of_a_second_pool_come_at_once_while_the_first_is_waited_for(own_redis: EmbeddedRedis) -> None:
    routes = Routes([Route("fast", model="fast")], default="slow")
    with Client(own_redis.url, routes=routes) as client, EchoWorker(own_redis.url, "fast"):
        client.submit("slow", 1)
        with closing(connect(own_redis.url)) as observer:
            wait_until(lambda: reads(observer), "the client waits for the slow pool")
        start = time.monotonic()

        result = client.submit("fast", 2).result()

        assert number_of(result) == 2
        assert time.monotonic() - start < 0.1


def reads(observer: redis.Redis) -> bool:
    return any(one["cmd"] == "blpop" for one in observer.client_list())


def kill_server(server: EmbeddedRedis) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    with closing(connect(server.url)) as client:
        wait_until(lambda: not alive(client), "the server is gone")


def alive(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.exceptions.ConnectionError:
        return False


@contextmanager
def hanging(server: EmbeddedRedis) -> Iterator[None]:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)
