"""The real worker, over Redis, where its stages meet: what no stage shows alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from common.broker import Broker
from common.connect import SOCKET_TIMEOUT_S, connect
from common.embedded import EmbeddedRedis
from common.errors import InferenceError, ModelError, WorkerLost
from common.keys import PoolKeys
from gateway import Client, Handle
from gateway.admin.pools import Admin
from tests.support.running import workers
from tests.support.waiting import wait_until

MODELS = """
import os
import time
from inference_worker import model

@model(inputs={"x": "FP32[]"}, rows=4)
def slow(x):
    time.sleep(0.05)
    return x * 2

@model(inputs={"x": "FP32[]"}, rows=8)
def drops(x):
    return x[x != 13]

@model(inputs={"x": "FP32[]"}, rows=8)
def bomb(x):
    if 13 in x:
        os._exit(1)
    return x

@model(inputs={"x": "FP32[2]"}, rows=2)
def pairs(x):
    return x.sum(axis=1)
"""


def _error(handle: Handle) -> InferenceError | None:
    try:
        handle.result()
    except InferenceError as error:
        return error
    return None


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    return path


def test_a_worker_that_was_idle_after_a_slow_batch_takes_again(redis_url: str, pool: str, models: Path) -> None:
    with workers(redis_url, pool, models), Client(redis_url, pool=pool, timeout_s=5) as client:
        for _ in range(2):
            assert client.infer("slow", 1.0)["output"] == 2
            # Longer than the blocking read that began beside the slow batch.
            time.sleep(1.5)
        assert client.infer("slow", 3.0)["output"] == 6


def test_an_item_that_the_model_drops_costs_its_batch_mates_nothing(redis_url: str, pool: str, models: Path) -> None:
    with workers(redis_url, pool, models), Client(redis_url, pool=pool) as client:
        numbers = [1.0, 2.0, 13.0, 4.0]
        answers = list(client.map("drops", numbers, on_error="return"))
    failed = [number for number, answer in zip(numbers, answers, strict=True) if isinstance(answer, ModelError)]
    assert failed == [13.0]


def test_what_kills_its_worker_takes_no_neighbour_with_it(redis_url: str, pool: str, models: Path) -> None:
    with workers(redis_url, pool, models), Client(redis_url, pool=pool) as client:
        handles = [client.submit("bomb", float(number)) for number in (1, 2, 13, 4, 5)]
        errors = [_error(handle) for handle in handles]
    assert [type(error) for error in errors] == [type(None), type(None), WorkerLost, type(None), type(None)]


def test_a_payload_key_of_another_type_is_a_dead_letter_and_kills_nobody(
    redis_url: str, redis_client: redis.Redis, pool: str, models: Path
) -> None:
    keys = PoolKeys(pool)
    with workers(redis_url, pool, models), Client(redis_url, pool=pool) as client:
        redis_client.rpush(keys.payload("x"), 1)
        redis_client.xadd(keys.streams[1], {"r": keys.payload("x")})
        assert client.infer("slow", 1.0)["output"] == 2
        wait_until(lambda: redis_client.xlen(keys.dead) == 1, "it is a dead letter")
        assert client.infer("slow", 2.0)["output"] == 4
    redis_client.delete(keys.dead, keys.payload("x"))


def test_a_request_of_many_rows_is_cut_and_its_rows_come_back_in_order(redis_url: str, pool: str, models: Path) -> None:
    rows = np.arange(14, dtype=np.float32).reshape(7, 2)
    with workers(redis_url, pool, models), Client(redis_url, pool=pool) as client:
        np.testing.assert_array_equal(client.infer("pairs", rows)["output"], rows.sum(axis=1))


def test_what_a_hanging_redis_delivered_to_nobody_is_answered_in_the_end(pool: str, models: Path) -> None:
    with EmbeddedRedis() as server, workers(server.url, pool, models), Client(server.url, pool=pool) as client:
        handles = [client.submit("slow", float(number), timeout=100) for number in range(40)]
        assert server.pid is not None
        # Given a Redis that hangs for longer than the worker's sockets wait
        os.kill(server.pid, signal.SIGSTOP)
        try:
            time.sleep(SOCKET_TIMEOUT_S + 1)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        # When it goes on, then each request is answered
        assert [handle.result()["output"] for handle in handles] == [2.0 * number for number in range(40)]


def test_a_version_whose_last_worker_has_left_is_no_longer_published(redis_url: str, pool: str, tmp_path: Path) -> None:
    versions = {}
    for version in ("1", "2"):
        versions[version] = tmp_path / f"v{version}.py"
        versions[version].write_text(
            f"from inference_worker import model\n\n@model(version='{version}')\ndef same(x):\n    return x\n"
        )
    broker = Broker(connect(redis_url), pool)
    with workers(redis_url, pool, versions["1"]):
        with workers(redis_url, pool, versions["2"]):
            wait_until(lambda: broker.models().keys() == {"same:1", "same:2"}, "both are published")
        wait_until(lambda: broker.models().keys() == {"same:1"}, "the newer one is retired")


def test_a_worker_tells_how_its_batches_were_and_why_they_went_out(redis_url: str, pool: str, models: Path) -> None:
    with workers(redis_url, pool, models), Client(redis_url, pool=pool) as client:
        list(client.map("slow", [float(number) for number in range(20)]))
        admin = Admin(connect(redis_url))

        def told() -> Mapping[str, Any]:
            return admin.snapshot([pool]).pools[0].workers[0].about

        wait_until(lambda: told().get("rows") == 20, "the worker tells of all that it ran")
        assert sum(told()["reasons"].values()) == told()["batches"]
        # Given batches of 4 rows at most, a window of 20 fills some
        assert told()["reasons"]["full"] >= 1


def test_two_workers_share_a_small_backlog(redis_url: str, pool: str, models: Path) -> None:
    with workers(redis_url, pool, models, procs=2), Client(redis_url, pool=pool) as client:
        list(client.map("slow", [float(number) for number in range(16)], window=16))
        admin = Admin(connect(redis_url))

        def rows() -> list[int]:
            return [worker.about.get("rows", 0) for worker in admin.snapshot([pool]).pools[0].workers]

        wait_until(lambda: sum(rows()) == 16, "the workers tell of all that they ran")
        assert min(rows()) >= 4


def test_nobody_waits_behind_another_tenants_backlog(
    redis_url: str, redis_client: redis.Redis, pool: str, models: Path
) -> None:
    with (
        workers(redis_url, pool, models),
        Client(redis_url, pool=pool, tenant="heavy") as heavy,
        Client(redis_url, pool=pool, tenant="light") as light,
    ):
        handles = [heavy.submit("slow", float(number)) for number in range(300)]
        wait_until(lambda: Admin(redis_client).snapshot([pool]).pools[0].in_flight >= 64, "the worker is full of them")

        for number in range(3):
            assert light.infer("slow", float(number))["output"] == 2 * number

        assert sum(handle.done() for handle in handles) < 150
        assert [handle.result()["output"] for handle in handles] == [2 * number for number in range(300)]
