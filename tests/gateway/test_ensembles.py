"""Ensembles over pools, run by both clients: one deadline, one trace, one error that names its step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import redis

from common.broker import Broker
from common.errors import ConfigError
from common.keys import POOLS, PoolKeys
from common.protocol import Request
from common.tensor import Tensor, to_tensor
from gateway import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    InferenceError,
    InvalidRequest,
    ModelError,
    ModelNotFound,
    Overloaded,
    Result,
)
from gateway.ensembles.ensemble import Ensembles
from gateway.ensembles.file import parse_ensembles
from tests.support.echo_worker import Answer, EchoWorker, model
from tests.support.leaks import keys_of
from tests.support.operations import unfinished
from tests.support.waiting import wait_until

#: add and double are in one pool, join is in another. `chain` is (x + 1) * 2, `both` is (x + 1) + 2 x.
FILE = """
[chain.steps.plus]
model = "add"
pool = "{one}"
inputs.x = "request.x"
parameters.by = 1

[chain.steps.times]
model = "double"
pool = "{two}"
inputs.x = "plus.y"

[chain.outputs]
y = "times.y"

[both.steps.plus]
model = "add"
pool = "{one}"
inputs.x = "request.x"

[both.steps.times]
model = "double"
pool = "{two}"
inputs.x = "request.x"

[both.steps.sum]
model = "sum"
pool = "{one}"
inputs.left = "plus.y"
inputs.right = "times.y"

[both.outputs]
y = "sum.y"
left = "plus.y"
"""


def compute(request: Request) -> Answer:
    values = {name: tensor.numpy() for name, tensor in request.inputs.items()}
    if request.model == "add":
        return {"y": to_tensor(values["x"] + np.float32(request.parameters.get("by", 1)))}
    if request.model == "double":
        return {"y": to_tensor(values["x"] * np.float32(2))}
    return {"y": to_tensor(values["left"] + values["right"])}


class Pools:
    """Two pools, what they serve, and a client's view of them."""

    def __init__(self, url: str, pool: str) -> None:
        self.url = url
        self.one, self.two = f"{pool}.one", f"{pool}.two"
        self.ensembles: Ensembles = parse_ensembles(FILE.format(one=self.one, two=self.two))

    @contextmanager
    def workers(self, **more: Any) -> Iterator[tuple[EchoWorker, EchoWorker]]:
        settings = {"answer": compute, **more}
        cached = {"cache_ttl_s": settings.pop("cache_ttl_s", 0.0)}
        with (
            EchoWorker(self.url, self.one, models=[model("add", **cached), model("sum", **cached)], **settings) as one,
            EchoWorker(self.url, self.two, models=[model("double", **cached)], **settings) as two,
        ):
            yield one, two

    def client(self, **more: Any) -> Client:
        return Client(self.url, ensembles=self.ensembles, **more)


@pytest.fixture
def pools(redis_url: str, redis_client: redis.Redis, pool: str) -> Iterator[Pools]:
    found = Pools(redis_url, pool)
    yield found
    for name in (found.one, found.two):
        for key in keys_of(redis_client, name):
            redis_client.delete(key)
        redis_client.srem(POOLS, name)


@pytest.fixture
def client(pools: Pools) -> Iterator[Client]:
    with pools.client(timeout_s=20) as client:
        yield client


X = np.array([1.0, 2.0], "f4")


def test_an_ensemble_is_asked_as_a_model_is(pools: Pools, client: Client) -> None:
    with pools.workers():
        result = client.infer("chain", {"x": X})

    np.testing.assert_array_equal(result["y"], (X + 1) * 2)
    assert (result.model, result.version, result.cached) == ("chain", "plus=1 times=1", False)


def test_steps_that_do_not_need_each_other_run_at_the_same_time(pools: Pools, client: Client) -> None:
    gate = threading.Event()
    with pools.workers(gate=gate):
        handle = client.submit("both", X)
        wait_until(lambda: repr(client).endswith("2 unanswered)"), "both first steps are under way")
        gate.set()

        np.testing.assert_array_equal(handle.result()["y"], (X + 1) + 2 * X)


def test_only_what_is_wanted_is_computed(pools: Pools, client: Client) -> None:
    with pools.workers() as (one, two):
        result = client.infer("both", X, outputs=["left"])

    assert list(result.outputs) == ["left"]
    assert ([request.model for request in one.seen], two.seen) == (["add"], [])


def test_all_steps_are_one_trace_of_several_spans(pools: Pools, client: Client) -> None:
    with pools.workers() as (one, two):
        handle = client.submit("both", X)
        handle.result()

    parents = [(request.trace or {})["traceparent"].split("-") for request in (*one.seen, *two.seen)]
    assert {trace for _, trace, _, _ in parents} == {handle.request_id}
    assert len({span for _, _, span, _ in parents}) == 3


def test_tensors_pass_from_step_to_step_as_they_are(pools: Pools, client: Client) -> None:
    large = Tensor("BF16", (1 << 20,), bytes(2 << 20))

    def pass_on(request: Request) -> Answer:
        return {"y": request.inputs["x"]}

    with pools.workers(answer=pass_on) as (_, two):
        client.infer("chain", {"x": large})

    assert two.seen[0].inputs["x"] == large


def test_tenant_priority_affinity_and_parameters_reach_the_steps(pools: Pools, client: Client) -> None:
    with pools.workers() as (one, two):
        result = client.infer("chain", X, tenant="acme", affinity="user", parameters={"plus": {"by": 5}})

    np.testing.assert_array_equal(result["y"], (X + 5) * 2)
    assert {(request.tenant, request.affinity) for request in (*one.seen, *two.seen)} == {("acme", "user")}


def test_each_step_gets_the_time_that_is_left(pools: Pools, client: Client) -> None:
    with pools.workers(pause_s=0.2) as (one, two):
        client.infer("chain", X, timeout=10)

    [first], [second] = one.seen, two.seen
    assert first.timeout_ms is not None
    assert second.timeout_ms is not None
    assert second.timeout_ms <= first.timeout_ms - 200


def test_a_step_that_is_too_late_is_named(pools: Pools, client: Client) -> None:
    gate = threading.Event()
    with pools.workers(gate=gate), EchoWorker(pools.url, pools.one, answer=compute, consumer="quick"):
        with pytest.raises(DeadlineExceeded, match=r"^step 'times' of ensemble 'chain': model 'double' did not answer"):
            client.infer("chain", X, timeout=1.0)
        gate.set()


@pytest.mark.parametrize("error", [ModelError("it broke"), Overloaded("full", retry_after_ms=250)])
def test_a_steps_error_names_it_and_keeps_its_code(pools: Pools, client: Client, error: InferenceError) -> None:
    def fail(request: Request) -> Answer:
        return error if request.model == "double" else compute(request)

    with pools.workers(answer=fail), pytest.raises(type(error)) as caught:
        client.infer("chain", X)

    assert str(caught.value) == f"step 'times' of ensemble 'chain': {error}"
    assert (caught.value.code, caught.value.retryable) == (error.code, error.retryable)
    assert getattr(caught.value, "retry_after_ms", None) == getattr(error, "retry_after_ms", None)


def test_where_one_step_fails_the_others_are_given_up(redis_client: redis.Redis, pools: Pools, client: Client) -> None:
    broker = Broker(redis_client, pools.two)
    broker.create_groups()
    fails = EchoWorker(pools.url, pools.one, answer=lambda _: ModelError("no"), models=[model("add"), model("sum")])

    with fails, pytest.raises(ModelError, match="step 'plus' of ensemble 'both': no"):
        client.infer("both", X)

    # The other first step waits in a pool without workers, unless it was not even sent yet.
    wait_until(lambda: repr(client).endswith("0 unanswered)"), "nothing is waited for")
    wait_until(lambda: redis_client.scard(broker.keys.cancelled) == sum(unfinished(redis_client, broker)), "given up")


def test_cancelling_gives_up_what_runs_and_sends_no_more(
    redis_client: redis.Redis, pools: Pools, client: Client
) -> None:
    broker = Broker(redis_client, pools.one)
    broker.create_groups()
    handle = client.submit("chain", X)
    wait_until(lambda: sum(unfinished(redis_client, broker)) == 1, "the first step is there")

    assert handle.cancel()

    with pytest.raises(Cancelled, match="the request to ensemble 'chain' was cancelled"):
        handle.result()
    assert not handle.cancel()
    wait_until(lambda: redis_client.scard(broker.keys.cancelled) == 1, "its step is given up")
    with pools.workers() as (one, two):
        client.infer("chain", X + 1)
    assert (len(one.seen), len(two.seen)) == (1, 1)


def test_a_client_that_is_closed_leaves_nobody_waiting(pools: Pools) -> None:
    client = pools.client()
    handle = client.submit("both", X)

    client.close()

    with pytest.raises(Cancelled, match="of ensemble 'both': the client was closed"):
        handle.result(timeout=5)


@pytest.mark.parametrize("ordered", [True, False])
def test_many_go_through_a_window(pools: Pools, client: Client, ordered: bool) -> None:
    asked = [np.full(2, number, "f4") for number in range(300)]

    with pools.workers():
        answers = [one["y"][0] for one in client.map("both", asked, ordered=ordered) if isinstance(one, Result)]

    expected = [3 * number + 1 for number in range(300)]
    assert (answers if ordered else sorted(answers)) == expected


def test_an_ensemble_takes_no_thread_of_its_own(pools: Pools, client: Client) -> None:
    gate = threading.Event()
    with pools.workers(gate=gate):
        before = threading.active_count()
        handles = [client.submit("both", X) for _ in range(200)]
        wait_until(lambda: repr(client).endswith("400 unanswered)"), "all are under way")
        # The client's sender and receiver.
        assert threading.active_count() <= before + 2
        gate.set()
        assert all(handle.result().model == "both" for handle in handles)


def test_a_clients_bound_holds_back_ensembles_but_none_that_has_begun(pools: Pools) -> None:
    with pools.workers(), pools.client(max_in_flight=1, timeout_s=20) as client:
        answers = [one["y"][0] for one in client.map("chain", [X] * 20) if isinstance(one, Result)]

    assert answers == [4.0] * 20


def test_many_callers_at_once_get_their_own(pools: Pools, client: Client) -> None:
    answers: dict[int, float] = {}

    def ask(number: int) -> None:
        for turn in range(20):
            answers[number * 20 + turn] = client.infer("both", np.float32(number * 20 + turn))["y"].item()

    with pools.workers():
        callers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()

    assert answers == {number: 3 * number + 1 for number in range(160)}


def test_steps_that_are_cached_are_not_computed_again(pools: Pools, client: Client) -> None:
    with pools.workers(cache_ttl_s=60.0) as (one, two):
        first, second = client.infer("chain", X), client.infer("chain", X)

    assert (first.cached, second.cached) == (False, True)
    assert (len(one.seen), len(two.seen)) == (1, 1)


def test_a_model_that_no_worker_serves_is_told_before_anything_is_sent(pools: Pools, client: Client) -> None:
    with (
        EchoWorker(pools.url, pools.one, models=[model("add")]) as one,
        EchoWorker(pools.url, pools.two, models=[model("triple")]),
        pytest.raises(ModelNotFound, match=r"step 'times' of ensemble 'chain': .* 'double'; there is triple:1"),
    ):
        client.infer("chain", X)
    assert one.seen == []


def test_types_that_do_not_fit_are_told_before_anything_is_sent(pools: Pools, client: Client) -> None:
    gives = model("add", outputs=[{"name": "y", "dtype": "FP32", "shape": [-1]}])
    takes = model("double", inputs=[{"name": "x", "dtype": "INT64", "shape": [-1]}])
    with (
        EchoWorker(pools.url, pools.one, models=[gives]) as one,
        EchoWorker(pools.url, pools.two, models=[takes]),
        pytest.raises(ConfigError, match=r"step 'times' of ensemble 'chain': input 'x' .* INT64\[-1\], and 'plus.y'"),
    ):
        client.infer("chain", X)
    assert one.seen == []


def test_inputs_that_the_ensemble_does_not_take_are_told(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="ensemble 'chain' takes the inputs x; got z"):
        client.infer("chain", {"z": X})


def test_a_result_is_waited_for_no_longer_than_is_said(pools: Pools, client: Client) -> None:
    gate = threading.Event()
    with pools.workers(gate=gate):
        handle = client.submit("chain", X)
        with pytest.raises(TimeoutError, match=r"model 'chain' has not answered within 0\.05 s; the request goes on"):
            handle.result(timeout=0.05)
        assert not handle.done()
        gate.set()
        np.testing.assert_array_equal(handle.result()["y"], (X + 1) * 2)


# asyncio


@pytest.fixture
def run(pools: Pools) -> Iterator[Any]:
    with pools.workers() as workers:
        yield lambda story: asyncio.run(_with_client(pools, story, workers))


async def _with_client(pools: Pools, story: Any, workers: Any) -> None:
    async with AsyncClient(pools.url, ensembles=pools.ensembles, timeout_s=20) as client:
        await story(client, *workers)


def test_asyncio_has_the_same_verbs(run: Any) -> None:
    async def story(client: AsyncClient, one: EchoWorker, two: EchoWorker) -> None:
        result = await client.infer("chain", X)
        np.testing.assert_array_equal(result["y"], (X + 1) * 2)
        handle = await client.submit("both", X)
        np.testing.assert_array_equal((await handle.result())["y"], 3 * X + 1)
        traces = {(request.trace or {})["traceparent"].split("-")[1] for request in (*one.seen, *two.seen)}
        assert handle.request_id in traces
        assert len(traces) == 2
        answers = client.map("both", [np.float32(number) for number in range(100)])
        assert [answer["y"].item() async for answer in _results(answers)] == [3 * n + 1 for n in range(100)]

    run(story)


async def _results(answers: AsyncIterator[Result | InferenceError]) -> AsyncIterator[Result]:
    async for answer in answers:
        assert isinstance(answer, Result)
        yield answer


def test_asyncio_names_the_step_that_failed(pools: Pools) -> None:
    async def story(client: AsyncClient, *_: EchoWorker) -> None:
        with pytest.raises(ModelError, match=r"^step 'times' of ensemble 'chain': no$"):
            await client.infer("chain", X)

    def fail(request: Request) -> Answer:
        return ModelError("no") if request.model == "double" else compute(request)

    with pools.workers(answer=fail) as workers:
        asyncio.run(_with_client(pools, story, workers))


def test_asyncio_names_the_step_that_is_too_late(pools: Pools) -> None:
    async def story(client: AsyncClient, *_: EchoWorker) -> None:
        with pytest.raises(DeadlineExceeded, match="step 'plus' of ensemble 'chain': model 'add' did not answer"):
            await client.infer("chain", X, timeout=0.3)

    gate = threading.Event()
    with pools.workers(gate=gate) as workers:
        asyncio.run(_with_client(pools, story, workers))


def test_a_task_that_is_cancelled_cancels_its_ensemble(redis_client: redis.Redis, pools: Pools) -> None:
    broker = Broker(redis_client, pools.one)
    broker.create_groups()

    async def story(client: AsyncClient) -> None:
        task = asyncio.create_task(client.infer("chain", X))
        await asyncio.to_thread(wait_until, lambda: sum(unfinished(redis_client, broker)) == 1, "it is there")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        marks = PoolKeys(pools.one).cancelled
        await asyncio.to_thread(wait_until, lambda: redis_client.scard(marks) == 1, "it is given up")

    asyncio.run(_with_client(pools, story, ()))
