"""The gRPC door, scraped: each call under the status that it ended with."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from common.embedded import free_port
from tests.support.echo_worker import EchoWorker, model
from tests.support.gateways import gateway
from tests.support.leaks import keys_of
from tests.support.scrape import Scraped, scrape
from tests.support.waiting import wait_until

triton = pytest.importorskip("tritonclient.grpc", reason="needs tritonclient")


def counted(port: int) -> Scraped | None:
    found = scrape(port)
    return found if found.of("inference_gateway_request_seconds_count", door="grpc") == 4 else None


def test_calls_are_counted_by_their_status(redis_url: str, redis_client: Any, tmp_path: Path) -> None:
    pool, port = f"metrics-grpc-{uuid4().hex[:8]}", free_port()
    value = triton.InferInput("x", [1], "FP32")
    value.set_data_from_numpy(np.array([1.5], np.float32))
    with (
        EchoWorker(redis_url, pool, models=[model("echo")]),
        gateway(redis_url, pool, tmp_path, "--metrics", f"127.0.0.1:{port}", doors=("grpc",)) as door,
        triton.InferenceServerClient(door.address) as client,
    ):
        for _ in range(3):
            client.infer("echo", [value])
        with pytest.raises(triton.InferenceServerException):
            client.get_model_metadata("nobody")

        found = wait_until(lambda: counted(port), "all calls are counted")

    redis_client.delete(*keys_of(redis_client, pool))
    assert found.of("inference_gateway_requests_total", door="grpc", code="OK") == 3
    assert found.of("inference_gateway_requests_total", door="grpc", code="NOT_FOUND") == 1
    assert found.of("inference_gateway_model_requests_total", model="echo") == 3
