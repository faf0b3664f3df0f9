"""The threaded client against a real server: its verbs, its errors, its manners."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import redis

from common.broker import Broker
from common.connect import connect
from common.embedded import EmbeddedRedis
from common.errors import (
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    InferenceError,
    InvalidRequest,
    ModelError,
    Overloaded,
)
from common.protocol import Request
from common.scripts import PUSH_WHOLE_UP_TO
from gateway import Client, Result
from gateway.payload import INLINE_UP_TO
from gateway.routing import Route, Routes
from tests.support.echo_worker import Answer, EchoWorker, echo
from tests.support.operations import unfinished
from tests.support.waiting import wait_until


@pytest.fixture
def client(redis_url: str, pool: str) -> Iterator[Client]:
    with Client(redis_url, pool=pool) as client:
        yield client


@pytest.fixture
def worker(redis_url: str, pool: str) -> Iterator[EchoWorker]:
    with EchoWorker(redis_url, pool) as worker:
        yield worker


def fail_on_odd(request: Request) -> Answer:
    number = int(request.inputs["input"].numpy())
    return ModelError(f"{number} is odd") if number % 2 else echo(request)


def number_of(result: Result | InferenceError) -> int:
    assert isinstance(result, Result)
    return int(result["output"])


# Asking


def test_a_result_is_an_array_by_its_name(client: Client, worker: EchoWorker) -> None:
    asked = np.arange(6, dtype=np.float32).reshape(2, 3)

    result = client.infer("echo", {"input": asked})

    np.testing.assert_array_equal(result["output"], asked)
    assert list(result.outputs) == ["output"]
    assert (result.model, result.version, result.cached, result.timings.batch_rows) == ("echo", "1", False, 4)


def test_an_output_that_is_not_there_is_named_with_those_that_are(client: Client, worker: EchoWorker) -> None:
    with pytest.raises(KeyError, match="no output 'score'; the model answered output"):
        client.infer("echo", 1.0)["score"]


def test_strings_go_in_and_come_out(client: Client, worker: EchoWorker) -> None:
    assert client.infer("echo", ["ä", "b"])["output"].tolist() == ["ä", "b"]
    assert client.infer("echo", "alone")["output"].item() == "alone"


def test_what_is_asked_reaches_the_worker(client: Client, worker: EchoWorker) -> None:
    client.infer("echo", {"a": 1}, version="3", parameters={"k": [1]}, outputs=["a"], tenant="acme", timeout=7)

    (request,) = worker.seen
    assert (request.version, request.parameters, request.outputs) == ("3", {"k": [1]}, ("a",))
    assert (request.tenant, request.timeout_ms) == ("acme", 7000)


def test_an_error_of_the_model_is_raised(redis_url: str, pool: str, client: Client) -> None:
    with EchoWorker(redis_url, pool, answer=fail_on_odd), pytest.raises(ModelError, match="3 is odd"):
        client.infer("echo", 3)


def test_a_bad_request_is_refused_before_it_is_sent(client: Client, worker: EchoWorker) -> None:
    with pytest.raises(InvalidRequest, match=r"inputs\.input: a list must be regular"):
        client.infer("echo", [[1], [1, 2]])

    assert worker.seen == []


def test_a_caller_alone_needs_no_thread(client: Client, worker: EchoWorker) -> None:
    before = threading.active_count()

    for number in range(10):
        assert number_of(client.infer("echo", number)) == number

    assert threading.active_count() == before


@pytest.mark.parametrize("timeout", [60, 5])
def test_many_threads_each_get_their_own_result(client: Client, worker: EchoWorker, timeout: float) -> None:
    with ThreadPoolExecutor(32) as threads:
        results = threads.map(lambda number: client.infer("echo", number, timeout=timeout), range(1000))

        assert [number_of(result) for result in results] == list(range(1000))


def test_requests_of_one_moment_travel_together(redis_url: str, pool: str, client: Client) -> None:
    gate = threading.Event()
    with EchoWorker(redis_url, pool, gate=gate) as worker:
        handles = [client.submit("echo", number) for number in range(200)]
        gate.set()
        assert [number_of(handle.result()) for handle in handles] == list(range(200))

    assert len(worker.seen) == 200


def test_a_pool_is_chosen_by_the_routes(redis_url: str, pool: str) -> None:
    routes = Routes([Route(pool, model="echo")], default="nobody")
    with EchoWorker(redis_url, pool), Client(redis_url, routes=routes) as client:
        assert number_of(client.infer("echo", 1)) == 1


# Handles


def test_a_handle_tells_whether_its_result_is_there(redis_url: str, pool: str, client: Client) -> None:
    gate = threading.Event()
    with EchoWorker(redis_url, pool, gate=gate):
        handle = client.submit("echo", 5)
        assert not handle.done()
        with pytest.raises(TimeoutError, match=r"model 'echo' has not answered within 0\.05 s; the request goes on"):
            handle.result(timeout=0.05)
        gate.set()
        wait_until(handle.done, "the handle is done")

        assert number_of(handle.result()) == 5
        assert not handle.cancel()


def test_a_handle_serves_many_threads_that_wait(redis_url: str, pool: str, client: Client) -> None:
    gate = threading.Event()
    with EchoWorker(redis_url, pool, gate=gate), ThreadPoolExecutor(8) as threads:
        handle = client.submit("echo", 5, timeout=10)
        waiting = [threads.submit(handle.result) for _ in range(8)]
        gate.set()

        assert [number_of(one.result()) for one in waiting] == [5] * 8


def test_a_cancelled_request_is_withdrawn(redis_client: redis.Redis, client: Client, broker: Broker) -> None:
    handle = client.submit("echo", 1)
    wait_until(lambda: entries(redis_client, broker) == 1, "it waits in the stream")

    assert handle.cancel()

    with pytest.raises(Cancelled, match="the request to model 'echo' was cancelled"):
        handle.result()
    wait_until(lambda: marks(redis_client, broker) == 1, "a worker will pass it over")


# Time


@pytest.mark.parametrize("submitted", [False, True])
def test_a_timeout_cancels_the_work(redis_client: redis.Redis, client: Client, broker: Broker, submitted: bool) -> None:
    start = time.monotonic()

    with pytest.raises(DeadlineExceeded, match=rf"pool '{broker.pool}' had no worker"):
        client.submit("echo", 1, timeout=0.2).result() if submitted else client.infer("echo", 1, timeout=0.2)

    assert 0.2 <= time.monotonic() - start < 0.7
    wait_until(lambda: marks(redis_client, broker) == 1, "a worker will pass it over")


def test_a_handle_that_nobody_waits_for_expires_too(redis_client: redis.Redis, client: Client, broker: Broker) -> None:
    handle = client.submit("echo", 1, timeout=0.2)

    wait_until(handle.done, "its time is over", within_s=1.0)
    with pytest.raises(DeadlineExceeded):
        handle.result()
    wait_until(lambda: marks(redis_client, broker) == 1, "a worker will pass it over")


def test_a_client_that_is_full_waits_for_room_until_the_deadline(redis_url: str, pool: str, broker: Broker) -> None:
    with Client(redis_url, pool=pool, max_in_flight=2) as client:
        first = client.submit("echo", 1)
        client.submit("echo", 2)
        with pytest.raises(DeadlineExceeded, match=r"could not start within 0\.1 s: 2 others"):
            client.submit("echo", 3, timeout=0.1)

        first.cancel()

        assert not client.submit("echo", 3).done()


def test_room_comes_with_the_replies(redis_url: str, pool: str) -> None:
    with EchoWorker(redis_url, pool), Client(redis_url, pool=pool, max_in_flight=4) as client:
        handles = [client.submit("echo", number) for number in range(100)]

        assert [number_of(handle.result()) for handle in handles] == list(range(100))


# Map


@pytest.mark.parametrize("window", [1, 7, 256])
def test_map_keeps_the_order(client: Client, worker: EchoWorker, window: int) -> None:
    assert [number_of(one) for one in client.map("echo", range(600), window=window)] == list(range(600))


def test_map_yields_results_as_they_come(redis_url: str, pool: str, client: Client) -> None:
    slow_reached, release = threading.Event(), threading.Event()

    def hold_the_first(request: Request) -> Answer:
        if int(request.inputs["input"].numpy()) == 0:
            slow_reached.set()
            release.wait()
        return echo(request)

    with (
        EchoWorker(redis_url, pool, answer=hold_the_first, most=1),
        EchoWorker(redis_url, pool, most=1, consumer="second"),
    ):
        results = client.map("echo", range(50), ordered=False, window=10)
        first = [number_of(next(results)) for _ in range(20)]
        release.set()

        assert 0 not in first or not slow_reached.is_set()
        assert sorted(first + [number_of(one) for one in results]) == list(range(50))


@pytest.mark.parametrize("ordered", [True, False])
def test_map_reads_no_further_than_its_window(
    redis_url: str, pool: str, client: Client, worker: EchoWorker, ordered: bool
) -> None:
    read = 0

    def inputs() -> Iterator[int]:
        nonlocal read
        for number in range(1000):
            read += 1
            yield number

    for taken, _ in enumerate(client.map("echo", inputs(), window=16, ordered=ordered)):
        assert read - taken <= 16
    assert read == 1000


@pytest.mark.parametrize("ordered", [True, False])
def test_map_returns_errors_in_their_place_where_asked(
    redis_url: str, pool: str, client: Client, ordered: bool
) -> None:
    with EchoWorker(redis_url, pool, answer=fail_on_odd):
        answers = list(client.map("echo", [0, 1, [[1], [1, 2]], 2], on_error="return", ordered=ordered))

    kinds = [type(answer) for answer in answers]
    assert sorted(kind.__name__ for kind in kinds) == ["InvalidRequest", "ModelError", "Result", "Result"]
    if ordered:
        assert kinds == [Result, ModelError, InvalidRequest, Result]


def test_map_raises_the_first_error_and_cancels_the_rest(redis_url: str, pool: str, client: Client) -> None:
    with EchoWorker(redis_url, pool, answer=fail_on_odd, most=1):
        with pytest.raises(ModelError, match="1 is odd"):
            list(client.map("echo", range(100)))

        assert repr(client).endswith("0 unanswered)")


def test_leaving_a_map_cancels_what_is_under_way(
    redis_client: redis.Redis, client: Client, broker: Broker, redis_url: str, pool: str
) -> None:
    with EchoWorker(redis_url, pool, most=1, pause_s=0.01) as worker:
        for _ in client.map("echo", range(1000), window=64):
            break
        wait_until(lambda: entries(redis_client, broker) == 0, "the rest is passed over")

        assert len(worker.seen) < 64


@pytest.mark.parametrize(("window", "on_error"), [(0, "raise"), (1, "ignore")])
def test_map_refuses_settings_that_it_does_not_know(client: Client, window: int, on_error: str) -> None:
    with pytest.raises(InvalidRequest):
        client.map("echo", [], window=window, on_error=on_error)  # type: ignore[arg-type]


# Overload


def test_an_overload_is_raised_with_the_suggested_wait(
    redis_client: redis.Redis, client: Client, broker: Broker
) -> None:
    broker.set_limits(backlog=1)
    client.submit("echo", 1)
    wait_until(lambda: entries(redis_client, broker) == 1, "the backlog is full")

    with pytest.raises(Overloaded, match=r"holds 1 unfinished requests \(bound 1\)") as caught:
        client.infer("echo", 2)

    assert caught.value.retry_after_ms >= 50


@pytest.mark.parametrize("ordered", [True, False])
def test_map_waits_an_overload_out(redis_url: str, pool: str, client: Client, broker: Broker, ordered: bool) -> None:
    broker.set_limits(backlog=8)
    with EchoWorker(redis_url, pool, pause_s=0.01):
        numbers = [number_of(one) for one in client.map("echo", range(60), window=32, ordered=ordered)]

    assert sorted(numbers) == list(range(60))
    assert not ordered or numbers == sorted(numbers)


# Large payloads


def test_large_requests_and_replies_go_through_keys_of_their_own(
    redis_client: redis.Redis, client: Client, worker: EchoWorker, broker: Broker
) -> None:
    large = np.random.default_rng(1).random(INLINE_UP_TO, dtype=np.float32)
    assert large.nbytes > max(INLINE_UP_TO, PUSH_WHOLE_UP_TO)

    for result in client.map("echo", [large] * 20):
        assert isinstance(result, Result)
        np.testing.assert_array_equal(result["output"], large)

    wait_until(lambda: entries(redis_client, broker) == 0, "all is finished")
    assert list(redis_client.scan_iter(broker.keys.payload("*"))) == []


# Closing


def test_closing_cancels_what_waits_and_withdraws_it(
    redis_client: redis.Redis, redis_url: str, pool: str, broker: Broker
) -> None:
    client = Client(redis_url, pool=pool)
    handle = client.submit("echo", 1)
    wait_until(lambda: entries(redis_client, broker) == 1, "it waits in the stream")
    start = time.monotonic()

    client.close()

    assert time.monotonic() - start < 1.0
    with pytest.raises(Cancelled, match="the client was closed"):
        handle.result()
    assert marks(redis_client, broker) == 1
    assert_no_threads_left()


def test_closing_ends_a_caller_that_waits(redis_url: str, pool: str) -> None:
    client = Client(redis_url, pool=pool)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(client.infer, "echo", timeout, timeout=timeout) for timeout in (60, 59, 5, 4)]
        wait_until(lambda: "4 unanswered" in repr(client), "all wait")
        start = time.monotonic()

        client.close()

        for one in waiting:
            with pytest.raises(Cancelled):
                one.result(timeout=1)
        assert time.monotonic() - start < 1.0
    assert_no_threads_left()


def test_a_caller_that_is_interrupted_leaves_the_others_their_answers(
    redis_client: redis.Redis, redis_url: str, pool: str, client: Client, broker: Broker
) -> None:
    gate = threading.Event()
    with EchoWorker(redis_url, pool, gate=gate), ThreadPoolExecutor(8) as threads:
        ctrl_c = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
        ctrl_c.start()
        with pytest.raises(KeyboardInterrupt):
            client.infer("echo", -1)
        others = [threads.submit(client.infer, "echo", number) for number in range(8)]
        wait_until(lambda: sum(unfinished(redis_client, broker)) == 9, "all have been sent")
        gate.set()

        assert [number_of(one.result(timeout=3)) for one in others] == list(range(8))


def test_a_closed_client_says_so(redis_url: str, pool: str) -> None:
    client = Client(redis_url, pool=pool)
    client.close()
    client.close()

    with pytest.raises(Cancelled, match="the client was closed"):
        client.infer("echo", 1)
    assert repr(client).endswith("closed)")


def test_closing_while_the_broker_is_not_there_is_quick(tmp_path: Path) -> None:
    client = Client(f"unix://{tmp_path}/none.sock", pool="p")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.infer, "echo", 1)
        wait_until(lambda: threading.active_count() > 2, "the client tries")
        start = time.monotonic()
        client.close()

        with pytest.raises(Cancelled):
            waiting.result(timeout=1)
    assert time.monotonic() - start < 1.0
    assert_no_threads_left()


def test_an_idle_client_sends_nothing(own_redis: EmbeddedRedis) -> None:
    with EchoWorker(own_redis.url, "p") as worker, Client(own_redis.url, pool="p") as client:
        list(client.map("echo", range(100)))
        client.infer("echo", 1)
        worker.stop()
        with closing(connect(own_redis.url)) as observer:
            wait_until(lambda: commands(observer) + 1 == commands(observer), "the last read has ended")
            before = commands(observer)

            time.sleep(1.5)  # longer than any read waits

            assert commands(observer) - before == 1


def test_an_inbox_goes_with_its_client(
    redis_client: redis.Redis, client: Client, worker: EchoWorker, pool: str
) -> None:
    list(client.map("echo", range(100)))

    assert [key for key in redis_client.scan_iter(f"iw:{{{pool}}}:inbox:*") if redis_client.pttl(key) < 0] == []


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": "a", "routes": Routes()}, "either pool or routes, not both"),
        ({"pool": "no good"}, "pool must be"),
        ({"tenant": ""}, "tenant must be"),
        ({"timeout_s": 0}, "timeout_s must be over 0"),
        ({"max_in_flight": 0}, "max_in_flight must be at least 1"),
        ({"routes": "/none/routes.toml"}, "cannot be read"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Client("redis://localhost", **settings)  # type: ignore[arg-type]


def test_the_password_is_shown_nowhere() -> None:
    with Client("redis://me:secret@localhost:1") as client:
        assert repr(client) == "Client(redis://me:***@localhost:1, 0 unanswered)"


def test_a_forked_child_is_told_to_make_its_own_client(client: Client, worker: EchoWorker) -> None:
    client.infer("echo", 1)
    handle = client.submit("echo", 2)
    context = get_context("fork")
    said = context.SimpleQueue()

    def child() -> None:
        for use in (lambda: client.infer("echo", 1), lambda: client.submit("echo", 1)):
            try:
                use()
            except RuntimeError as error:
                said.put(str(error))
        client.close()

    process = context.Process(target=child)
    process.start()
    process.join(10)

    assert process.exitcode == 0
    assert "make a client after the fork" in said.get()
    assert "make a client after the fork" in said.get()
    assert number_of(handle.result()) == 2
    assert number_of(client.infer("echo", 3)) == 3


def entries(client: redis.Redis, broker: Broker) -> int:
    return sum(unfinished(client, broker))


def commands(client: redis.Redis) -> int:
    """Commands that the server has executed, this one not counted yet."""
    return int(client.info("stats")["total_commands_processed"])


def marks(client: redis.Redis, broker: Broker) -> int:
    """Entries that a worker will pass over."""
    return int(client.scard(broker.keys.cancelled))


def assert_no_threads_left() -> None:
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("inference-client")]
    assert left == []
