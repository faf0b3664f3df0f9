"""Results that are shared: identical requests in flight, and results that are kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import redis

from common.broker import Broker
from common.digest import is_digest
from common.errors import DeadlineExceeded, ModelNotFound
from common.protocol import Request
from common.scripts import PUSH_WHOLE_UP_TO
from gateway import AsyncClient, Client, Result
from tests.support.echo_worker import Answer, EchoWorker, echo, model
from tests.support.operations import unfinished
from tests.support.waiting import wait_until

CACHED = model("echo", cache_ttl_s=60.0)


@pytest.fixture
def worker(redis_url: str, pool: str) -> Iterator[EchoWorker]:
    with EchoWorker(redis_url, pool, models=[CACHED]) as worker:
        yield worker


@pytest.fixture
def client(redis_url: str, pool: str) -> Iterator[Client]:
    with Client(redis_url, pool=pool) as client:
        yield client


def test_the_second_time_a_result_comes_from_the_cache(client: Client, worker: EchoWorker) -> None:
    asked = np.ones(4, "f4")

    first, second = client.infer("echo", asked), client.infer("echo", asked)

    assert (first.cached, second.cached) == (False, True)
    np.testing.assert_array_equal(first["output"], second["output"])
    assert len(worker.seen) == 1


def test_a_caller_who_reads_his_inbox_hears_of_what_submit_found_in_the_cache(
    client: Client, worker: EchoWorker
) -> None:
    asked = list(np.eye(200, dtype="f4"))
    computed = list(client.map("echo", asked))

    # Unwoken, each pass would wait for the end of a blocking read, a second long.
    passes: list[int] = []
    calls = threading.Thread(target=lambda: passes.extend(len(list(client.map("echo", asked))) for _ in range(4)))
    calls.start()
    calls.join(3)

    assert passes == [len(computed)] * 4


def test_another_client_finds_it_too(redis_url: str, pool: str, client: Client, worker: EchoWorker) -> None:
    client.infer("echo", "x")

    with Client(redis_url, pool=pool) as other:
        assert other.infer("echo", "x").cached


def test_a_cached_result_may_be_longer_than_what_submit_answers_whole(
    redis_url: str, pool: str, client: Client, worker: EchoWorker
) -> None:
    asked = np.arange(PUSH_WHOLE_UP_TO, dtype="f4")
    client.infer("echo", asked)

    async def ask() -> Result:
        async with AsyncClient(redis_url, pool=pool) as other:
            return await other.infer("echo", asked)

    with Client(redis_url, pool=pool) as other:
        for result in (other.infer("echo", asked), asyncio.run(ask())):
            assert result.cached
            np.testing.assert_array_equal(result["output"], asked)


@pytest.mark.parametrize(
    "more", [{"tenant": "acme"}, {"parameters": {"k": 1}}, {"outputs": ["output"]}, {"version": "2"}]
)
def test_what_the_result_depends_on_parts_requests(client: Client, worker: EchoWorker, more: dict[str, object]) -> None:
    client.infer("echo", "x")

    assert not client.infer("echo", "x", **more).cached  # type: ignore[arg-type]


def test_a_call_may_pass_the_cache_by(client: Client, worker: EchoWorker) -> None:
    client.infer("echo", "x")

    assert not client.infer("echo", "x", cache=False).cached
    assert len(worker.seen) == 2


def test_a_model_that_does_not_cache_computes_each_time(redis_url: str, pool: str, client: Client) -> None:
    with EchoWorker(redis_url, pool, models=[model("echo")]) as worker:
        assert not client.infer("echo", "x").cached
        assert not client.infer("echo", "x").cached

    assert len(worker.seen) == 2
    assert not is_digest(worker.seen[0].id)


def test_identical_requests_in_flight_are_computed_once(redis_url: str, pool: str, client: Client) -> None:
    gate = threading.Event()
    with EchoWorker(redis_url, pool, models=[CACHED], gate=gate) as worker, Client(redis_url, pool=pool) as other:
        handles = [one.submit("echo", "x") for one in (client, other) for _ in range(50)]
        wait_until(lambda: repr(client).endswith("1 unanswered)"), "one request stands for all")
        gate.set()
        results = [handle.result(timeout=10) for handle in handles]

    assert [result["output"].item() for result in results] == ["x"] * 100
    assert len(worker.seen) == 1


def test_a_shorter_deadline_of_somebody_else_is_not_ours(
    redis_client: redis.Redis, redis_url: str, pool: str, client: Client, broker: Broker
) -> None:
    late = threading.Event()

    def too_late_at_first(request: Request) -> Answer:
        if is_digest(request.id):
            late.set()
            return DeadlineExceeded("the time of whoever asked first is over")
        return echo(request)

    gate = threading.Event()
    with (
        EchoWorker(redis_url, pool, models=[CACHED], gate=gate, answer=too_late_at_first),
        Client(redis_url, pool=pool) as hasty,
    ):
        first = hasty.submit("echo", "x", timeout=0.5)
        wait_until(lambda: sum(unfinished(redis_client, broker)) == 1, "the hasty one is first")
        second = client.submit("echo", "x", timeout=30)
        with pytest.raises(DeadlineExceeded):
            first.result()
        gate.set()

        assert second.result()["output"].item() == "x"
        assert late.is_set()


def test_a_version_that_is_gone_since_the_catalog_was_read_is_asked_for_again(
    redis_url: str, pool: str, client: Client
) -> None:
    def only_the_second(request: Request) -> Answer:
        if request.version == "1":
            return ModelNotFound("model 'echo' has no version 1; it has 2")
        return echo(request)

    with EchoWorker(redis_url, pool, models=[CACHED], answer=only_the_second):
        assert client.infer("echo", "x")["output"].item() == "x"
        with pytest.raises(ModelNotFound):
            client.infer("echo", "y", version="1")


def test_once_a_reloaded_model_is_published_nothing_kept_of_the_old_one_is_answered(
    redis_url: str, pool: str, client: Client
) -> None:
    with EchoWorker(redis_url, pool, models=[CACHED]) as worker:
        first, kept = client.infer("echo", "x"), client.infer("echo", "x")
        worker.broker.publish_models(dict([model("echo", cache_ttl_s=60.0, weights="w2")]))

        outdated, fresh, kept_again = (client.infer("echo", "x") for _ in range(3))

    assert [one.cached for one in (first, kept, outdated, fresh, kept_again)] == [False, True, False, False, True]
    # The one by the old catalog under an id of its own, then under the digest of the new weights.
    assert len({request.id for request in worker.seen}) == 3


def test_an_async_client_answers_nothing_kept_of_a_reloaded_model_either(redis_url: str, pool: str) -> None:
    async def story() -> list[bool]:
        async with AsyncClient(redis_url, pool=pool) as client:
            before = [await client.infer("echo", "x") for _ in range(2)]
            worker.broker.publish_models(dict([model("echo", cache_ttl_s=60.0, weights="w2")]))
            after = [await client.infer("echo", "x") for _ in range(3)]
        return [one.cached for one in before + after]

    with EchoWorker(redis_url, pool, models=[CACHED]) as worker:
        assert asyncio.run(story()) == [False, True, False, False, True]
