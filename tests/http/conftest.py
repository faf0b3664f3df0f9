"""One gateway and one worker in a thread, for all tests that only ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from common.errors import InferenceError, InvalidRequest, ModelError, ModelNotFound
from common.keys import POOLS
from common.protocol import Request
from common.tensor import Tensor, from_numpy, to_tensor
from tests.support.echo_worker import Answer, EchoWorker, echo, model
from tests.support.gateways import Gateway, gateway
from tests.support.leaks import keys_of


def _embed(request: Request) -> Answer:
    """Three numbers that tell the texts apart."""
    texts = request.inputs["text"].numpy().reshape(-1)
    rows = np.array([[len(one), sum(map(ord, one)) % 97 + 1, 2.0] for one in texts], dtype=np.float32)
    return {"embedding": from_numpy(rows)}


def _bad(request: Request) -> Answer:
    return {"out": from_numpy(np.array([np.nan, np.inf], dtype=np.float32))}


def _bf16(request: Request) -> Answer:
    return {"out": Tensor("BF16", (2,), b"\x80\x3f\x00\x40")}


def _fails(request: Request) -> Answer:
    return ModelError("a negative number has no real root")


def _upper(request: Request) -> Answer:
    return {"out": to_tensor([str(one).upper() for one in request.inputs["text"].numpy().reshape(-1)])}


ANSWERS: dict[str, Callable[[Request], Answer]] = {
    "echo": echo, "kept": echo, "kept-embed": _embed, "embed": _embed, "nan": _bad, "bf16": _bf16,
    "fails": _fails, "upper": _upper,
}  # fmt: skip


def answer(request: Request) -> Answer:
    found = ANSWERS.get(request.model)
    if found is None:
        unknown: InferenceError = ModelNotFound(f"model '{request.model}' is not served here")
        return unknown
    try:
        return found(request)
    except KeyError as missing:
        return InvalidRequest(f"input {missing} is missing")


def tensor(name: str, dtype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape}


MODELS = [
    model("echo"),
    model("kept", inputs=[tensor("x", "FP32", 3)], cache_ttl_s=60.0),
    model("kept-embed", inputs=[tensor("text", "BYTES")], cache_ttl_s=60.0),
    model("embed", inputs=[tensor("text", "BYTES")], outputs=[tensor("embedding", "FP32", 3)]),
    model("nan", inputs=[tensor("x", "FP32")]),
    model("bf16", inputs=[tensor("x", "FP32")]),
    model("fails", inputs=[tensor("x", "FP32")]),
    model("upper", inputs=[tensor("text", "BYTES")], outputs=[tensor("out", "BYTES")]),
]


@pytest.fixture(scope="session")
def worker(redis_url: str, redis_client: Any) -> Iterator[EchoWorker]:
    pool = f"http-{uuid4().hex[:8]}"
    with EchoWorker(redis_url, pool, answer=answer, models=MODELS) as it:
        yield it
    redis_client.delete(*keys_of(redis_client, pool))
    redis_client.srem(POOLS, pool)


@pytest.fixture(scope="session")
def door(redis_url: str, worker: EchoWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(redis_url, worker.broker.pool, tmp_path_factory.mktemp("door")) as it:
        yield it
