"""One gRPC door and one worker in a thread, for all tests that only ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from common.errors import ModelError
from common.keys import POOLS
from common.protocol import Request
from tests.support.echo_worker import Answer, EchoWorker, echo, model
from tests.support.gateways import Gateway, gateway
from tests.support.leaks import keys_of

grpc = pytest.importorskip("grpc", reason="needs the extra grpc")
triton = pytest.importorskip("tritonclient.grpc", reason="needs tritonclient")

X = {"name": "x", "dtype": "FP32", "shape": (3,)}


def answer(request: Request) -> Answer:
    return ModelError("a negative number has no real root") if request.model == "fails" else echo(request)


@pytest.fixture(scope="session")
def worker(redis_url: str, redis_client: Any) -> Iterator[EchoWorker]:
    pool = f"grpc-{uuid4().hex[:8]}"
    models = [model("echo"), model("kept", inputs=[X], cache_ttl_s=60.0), model("fails"), model("v", version="1.5")]
    with EchoWorker(redis_url, pool, answer=answer, models=models) as it:
        yield it
    redis_client.delete(*keys_of(redis_client, pool))
    redis_client.srem(POOLS, pool)


@pytest.fixture(scope="session")
def door(redis_url: str, worker: EchoWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(redis_url, worker.broker.pool, tmp_path_factory.mktemp("door"), doors=("grpc",)) as it:
        yield it


@pytest.fixture(scope="session")
def channel(door: Gateway) -> Iterator[Any]:
    with grpc.insecure_channel(door.address) as it:
        yield it


@pytest.fixture
def client(door: Gateway) -> Iterator[Any]:
    with triton.InferenceServerClient(door.address) as it:
        yield it


@pytest.fixture
def one() -> list[Any]:
    """The inputs of a small request."""
    found = triton.InferInput("x", [1], "FP32")
    return [found.set_data_from_numpy(np.ones(1, np.float32))]
