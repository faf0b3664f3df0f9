"""The asyncio client against a real server: the same verbs, in one event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from common.broker import Broker
from common.errors import (
    BrokerUnavailable,
    Cancelled,
    DeadlineExceeded,
    InferenceError,
    InvalidRequest,
    ModelError,
    Overloaded,
)
from common.protocol import Request
from gateway import AsyncClient, Result
from gateway.payload import INLINE_UP_TO
from tests.support.echo_worker import Answer, EchoWorker, echo
from tests.support.operations import unfinished

Story = Callable[[AsyncClient], Awaitable[Any]]


@pytest.fixture
def worker(redis_url: str, pool: str) -> Iterator[EchoWorker]:
    with EchoWorker(redis_url, pool) as worker:
        yield worker


@pytest.fixture
def tell(redis_url: str, pool: str) -> Callable[[Story], Any]:
    """Runs a story with a client in a loop of its own; afterwards no task of the client is left."""

    async def with_client(story: Story) -> Any:
        async with AsyncClient(redis_url, pool=pool) as client:
            told = await story(client)
        assert_no_tasks_left()
        return told

    return lambda story: asyncio.run(with_client(story))


def fail_on_odd(request: Request) -> Answer:
    number = int(request.inputs["input"].numpy())
    return ModelError(f"{number} is odd") if number % 2 else echo(request)


def number_of(result: Result | InferenceError) -> int:
    assert isinstance(result, Result)
    return int(result["output"])


async def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


def assert_no_tasks_left() -> None:
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_result_is_an_array_by_its_name(tell: Callable[[Story], Any], worker: EchoWorker) -> None:
    async def story(client: AsyncClient) -> None:
        result = await client.infer("echo", np.ones(3, "f4"), version="2", tenant="acme", timeout=7)
        np.testing.assert_array_equal(result["output"], [1, 1, 1])

    tell(story)

    (request,) = worker.seen
    assert (request.version, request.tenant, request.timeout_ms) == ("2", "acme", 7000)


def test_many_tasks_each_get_their_own_result(tell: Callable[[Story], Any], worker: EchoWorker) -> None:
    async def story(client: AsyncClient) -> list[int]:
        results = await asyncio.gather(*(client.infer("echo", number) for number in range(1000)))
        return [number_of(result) for result in results]

    assert tell(story) == list(range(1000))


def test_a_handle_serves_many_tasks_that_wait(tell: Callable[[Story], Any], redis_url: str, pool: str) -> None:
    gate = threading.Event()

    async def story(client: AsyncClient) -> list[int]:
        handle = await client.submit("echo", 5)
        waiting = [asyncio.create_task(handle.result()) for _ in range(8)]
        with pytest.raises(TimeoutError, match=r"model 'echo' has not answered within 0\.05 s"):
            await handle.result(timeout=0.05)
        waiting.pop().cancel()
        assert not handle.done()
        gate.set()
        return [number_of(result) for result in await asyncio.gather(*waiting)]

    with EchoWorker(redis_url, pool, gate=gate):
        assert tell(story) == [5] * 7


def test_an_error_of_the_model_is_raised(tell: Callable[[Story], Any], redis_url: str, pool: str) -> None:
    async def story(client: AsyncClient) -> None:
        with pytest.raises(ModelError, match="3 is odd"):
            await client.infer("echo", 3)

    with EchoWorker(redis_url, pool, answer=fail_on_odd):
        tell(story)


def test_a_timeout_cancels_the_work(tell: Callable[[Story], Any], redis_client: redis.Redis, broker: Broker) -> None:
    async def story(client: AsyncClient) -> None:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="had no worker"):
            await client.infer("echo", 1, timeout=0.2)
        assert 0.2 <= time.monotonic() - start < 0.4
        await eventually(lambda: redis_client.scard(broker.keys.cancelled) == 1, "it is marked")

    tell(story)


def test_a_task_that_is_cancelled_cancels_its_request(
    tell: Callable[[Story], Any], redis_client: redis.Redis, broker: Broker
) -> None:
    async def story(client: AsyncClient) -> None:
        task = asyncio.create_task(client.infer("echo", 1))
        await eventually(lambda: sum(unfinished(redis_client, broker)) == 1, "it waits in the stream")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: redis_client.scard(broker.keys.cancelled) == 1, "it is marked")

    tell(story)


@pytest.mark.parametrize("window", [1, 7, 256])
def test_map_keeps_the_order(tell: Callable[[Story], Any], worker: EchoWorker, window: int) -> None:
    async def story(client: AsyncClient) -> list[int]:
        return [number_of(one) async for one in client.map("echo", range(600), window=window)]

    assert tell(story) == list(range(600))


@pytest.mark.parametrize("ordered", [True, False])
def test_map_reads_no_further_than_its_window(tell: Callable[[Story], Any], worker: EchoWorker, ordered: bool) -> None:
    read = 0

    async def inputs() -> AsyncIterator[int]:
        nonlocal read
        for number in range(500):
            read += 1
            yield number

    async def story(client: AsyncClient) -> int:
        taken = 0
        async for _ in client.map("echo", inputs(), window=16, ordered=ordered):
            assert read - taken <= 16
            taken += 1
        return taken

    assert tell(story) == 500


@pytest.mark.parametrize("ordered", [True, False])
def test_map_returns_errors_in_their_place_where_asked(
    tell: Callable[[Story], Any], redis_url: str, pool: str, ordered: bool
) -> None:
    async def story(client: AsyncClient) -> list[str]:
        inputs = [0, 1, [[1], [1, 2]], 2]
        answers = client.map("echo", inputs, on_error="return", ordered=ordered)
        return [type(answer).__name__ async for answer in answers]

    with EchoWorker(redis_url, pool, answer=fail_on_odd):
        kinds = tell(story)

    assert sorted(kinds) == ["InvalidRequest", "ModelError", "Result", "Result"]
    assert not ordered or kinds == ["Result", "ModelError", "InvalidRequest", "Result"]


def test_leaving_a_map_cancels_what_is_under_way(
    tell: Callable[[Story], Any], redis_client: redis.Redis, broker: Broker, redis_url: str, pool: str
) -> None:
    async def story(client: AsyncClient) -> None:
        async with aclosing(client.map("echo", range(1000), window=64)) as results:  # type: ignore[type-var]
            async for _ in results:
                break
        await eventually(lambda: sum(unfinished(redis_client, broker)) == 0, "the rest is passed over")

    with EchoWorker(redis_url, pool, most=1, pause_s=0.01) as worker:
        tell(story)
        assert len(worker.seen) < 64


@pytest.mark.parametrize("ordered", [True, False])
def test_map_waits_an_overload_out(
    tell: Callable[[Story], Any], redis_url: str, pool: str, broker: Broker, ordered: bool
) -> None:
    async def story(client: AsyncClient) -> list[int]:
        return [number_of(one) async for one in client.map("echo", range(60), window=32, ordered=ordered)]

    broker.set_limits(backlog=8)
    with EchoWorker(redis_url, pool, pause_s=0.01):
        assert sorted(tell(story)) == list(range(60))


def test_an_overload_is_raised_with_the_suggested_wait(
    tell: Callable[[Story], Any], redis_client: redis.Redis, broker: Broker
) -> None:
    async def story(client: AsyncClient) -> None:
        await client.submit("echo", 1)
        await eventually(lambda: sum(unfinished(redis_client, broker)) == 1, "the backlog is full")
        with pytest.raises(Overloaded) as caught:
            await client.infer("echo", 2)
        assert caught.value.retry_after_ms >= 50

    broker.set_limits(backlog=1)
    tell(story)


def test_large_requests_and_replies_go_through_keys_of_their_own(
    tell: Callable[[Story], Any], worker: EchoWorker
) -> None:
    large = np.random.default_rng(1).random(INLINE_UP_TO, dtype=np.float32)

    async def story(client: AsyncClient) -> None:
        async for result in client.map("echo", [large] * 10):
            assert isinstance(result, Result)
            np.testing.assert_array_equal(result["output"], large)

    tell(story)


def test_room_comes_with_the_replies(redis_url: str, pool: str, worker: EchoWorker) -> None:
    async def story() -> list[int]:
        async with AsyncClient(redis_url, pool=pool, max_in_flight=4) as client:
            handles = [await client.submit("echo", number) for number in range(100)]
            return [number_of(await handle.result()) for handle in handles]

    assert asyncio.run(story()) == list(range(100))


# Closing


def test_closing_cancels_what_waits_and_withdraws_it(
    redis_client: redis.Redis, redis_url: str, pool: str, broker: Broker
) -> None:
    async def story() -> None:
        client = AsyncClient(redis_url, pool=pool)
        waiting = [asyncio.create_task(client.infer("echo", number)) for number in range(4)]
        await eventually(lambda: sum(unfinished(redis_client, broker)) == 4, "they wait in the stream")
        start = time.monotonic()

        await client.close()
        await client.close()

        assert time.monotonic() - start < 1.0
        for one in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(one, Cancelled)
        with pytest.raises(Cancelled, match="the client was closed"):
            await client.infer("echo", 1)
        assert_no_tasks_left()

    asyncio.run(story())
    assert redis_client.scard(broker.keys.cancelled) == 4


def test_closing_while_the_broker_is_not_there_is_quick(tmp_path: Path) -> None:
    async def story() -> None:
        client = AsyncClient(f"unix://{tmp_path}/none.sock", pool="p")
        waiting = asyncio.create_task(client.infer("echo", 1))
        await asyncio.sleep(0.05)
        start = time.monotonic()
        await client.close()
        assert time.monotonic() - start < 1.0
        with pytest.raises(Cancelled):
            await waiting
        assert_no_tasks_left()

    asyncio.run(story())


def test_a_broker_that_was_never_reached_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        async with AsyncClient(f"unix://:secret@{tmp_path}/none.sock", pool="p") as client:
            with pytest.raises(BrokerUnavailable, match=r"Redis at unix://:\*\*\*@.* was not reached within 0\.3 s"):
                await client.infer("echo", 1, timeout=0.3)

    asyncio.run(story())


def test_a_client_that_was_never_used_closes_without_a_loop_of_its_own(redis_url: str) -> None:
    client = AsyncClient(redis_url)

    asyncio.run(client.close())


def test_a_client_belongs_to_one_event_loop(redis_url: str, pool: str, worker: EchoWorker) -> None:
    client = AsyncClient(redis_url, pool=pool)

    async def story() -> None:
        await client.infer("echo", 1)
        await client.close()

    asyncio.run(story())
    with pytest.raises(RuntimeError, match="make one client for each loop"):
        asyncio.run(story())


def test_map_refuses_settings_that_it_does_not_know(redis_url: str) -> None:
    with pytest.raises(InvalidRequest, match="window must be at least 1"):
        AsyncClient(redis_url).map("echo", [], window=0)
