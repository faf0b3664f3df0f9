"""tritonclient's gRPC clients, unmodified, against a gateway."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

from tests.support.command import MODELS
from tests.support.echo_worker import EchoWorker
from tests.support.gateways import Gateway, gateway
from tests.support.running import workers

ARRAYS = {
    "BOOL": np.array([[True, False]]),
    "INT8": np.array([-128, 127], dtype=np.int8),
    "INT16": np.array([-(2**15)], dtype=np.int16),
    "INT32": np.array([[2**31 - 1]], dtype=np.int32),
    "INT64": np.arange(6, dtype=np.int64).reshape(2, 3),
    "UINT8": np.array([255], dtype=np.uint8),
    "UINT16": np.array([2**16 - 1], dtype=np.uint16),
    "UINT32": np.array([2**32 - 1], dtype=np.uint32),
    "UINT64": np.array([2**64 - 1], dtype=np.uint64),
    "FP16": np.array([0.5, 65504], dtype=np.float16),
    "FP32": np.random.default_rng(0).standard_normal((300, 400), dtype=np.float32),
    "BF16": np.array([1.0, -2.5], dtype=ml_dtypes.bfloat16),
    "FP64": np.array([1e300, -0.1, np.nan]),
    "BYTES": np.array([["héllo".encode(), b"", b"\xff\x00"]], dtype=object),
}


def tensor(name: str, array: Any, dtype: str) -> Any:
    return triton.InferInput(name, list(array.shape), dtype).set_data_from_numpy(array)


def test_it_sees_a_server_that_lives_is_ready_and_has_the_model(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert client.is_model_ready("echo", "1")
    assert not client.is_model_ready("nobody")


def test_it_reads_metadata_configuration_counts_and_the_index(client: Any, one: Any) -> None:
    client.infer("echo", one)

    assert "binary_tensor_data" in client.get_server_metadata().extensions
    [x] = client.get_model_metadata("kept").inputs
    assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, 3])
    config = client.get_model_config("kept").config
    assert (config.max_batch_size, config.input[0].data_type, config.response_cache.enable) == (64, 11, True)
    assert list(config.version_policy.specific.versions) == [1]
    # A version that is no number is none in Triton's configuration.
    assert list(client.get_model_config("v").config.version_policy.specific.versions) == []
    assert list(client.get_model_metadata("v").versions) == ["1.5"]
    [counts] = client.get_inference_statistics("echo").model_stats
    assert counts.inference_stats.success.count >= 1
    assert {"echo", "kept", "fails", "v"} == {one.name for one in client.get_inference_statistics().model_stats}
    assert [one.state for one in client.get_model_repository_index().models] == ["READY"] * 4


@pytest.mark.parametrize("dtype", ARRAYS)
def test_every_dtype_comes_back_as_it_went(client: Any, dtype: str) -> None:
    array = ARRAYS[dtype]

    found = client.infer("echo", [tensor("input", array, dtype)], outputs=[triton.InferRequestedOutput("output")])

    np.testing.assert_array_equal(found.as_numpy("output"), array)
    assert found.get_output("output").datatype == dtype


def test_id_version_priority_timeout_and_parameters_go_through(client: Any, one: Any, worker: EchoWorker) -> None:
    before = len(worker.seen)

    found = client.infer(
        "echo", one, model_version="1", request_id="r7", priority=1, timeout=5_000_000,
        parameters={"top_k": 3, "half": 0.5, "yes": True, "text": "t"},
    )  # fmt: skip

    assert found.get_response().id == "r7"
    [seen] = worker.seen[before:]
    assert (seen.version, seen.timeout_ms) == ("1", 5000)
    assert seen.parameters == {"top_k": 3, "half": 0.5, "yes": True, "text": "t"}


def test_requests_can_be_compressed(client: Any) -> None:
    array = np.zeros(100_000, np.float32)

    found = client.infer("echo", [tensor("input", array, "FP32")], compression_algorithm="gzip")

    np.testing.assert_array_equal(found.as_numpy("output"), array)


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (lambda client, one: client.infer("no model", one), "INVALID_ARGUMENT"),
        (lambda client, one: client.infer("fails", one), "UNKNOWN"),
        (lambda client, one: client.get_model_metadata("nobody"), "NOT_FOUND"),
        (lambda client, one: client.infer("echo", one, sequence_id=7), "INVALID_ARGUMENT"),
        (lambda client, one: client.get_system_shared_memory_status(), "UNIMPLEMENTED"),
        (lambda client, one: client.register_system_shared_memory("r", "/r", 8), "UNIMPLEMENTED"),
        (lambda client, one: client.unregister_cuda_shared_memory(), "UNIMPLEMENTED"),
        (lambda client, one: client.get_trace_settings(), "UNIMPLEMENTED"),
        (lambda client, one: client.update_log_settings({"log_info": True}), "UNIMPLEMENTED"),
    ],
)
def test_an_error_has_its_status_and_says_what_is_wrong(client: Any, one: Any, call: Any, status: str) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        call(client, one)

    assert caught.value.status() == f"StatusCode.{status}"
    assert caught.value.message()


def test_shared_memory_in_a_request_is_refused_clearly(client: Any) -> None:
    shared = triton.InferInput("input", [1], "FP32")
    shared.set_shared_memory("region", 4)

    with pytest.raises(triton.InferenceServerException, match="shared memory is not supported"):
        client.infer("echo", [shared])


def test_a_stream_answers_every_request_and_tells_errors_inside(client: Any, one: Any) -> None:
    answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))

    for index in range(40):
        client.async_stream_infer("fails" if index % 4 == 3 else "echo", one, request_id=str(index))
    found = [answers.get(timeout=20) for _ in range(40)]
    client.stop_stream()

    good = {result.get_response().id for result, error in found if error is None}
    assert good == {str(index) for index in range(40) if index % 4 != 3}
    assert {error.message() for _, error in found if error is not None} == {"a negative number has no real root"}
    assert all(
        result.get_response().parameters["triton_final_response"].bool_param for result, error in found if not error
    )


def test_the_asyncio_client_works_the_same(door: Gateway) -> None:
    array = np.arange(3, dtype=np.float32)

    async def requests() -> AsyncIterator[Any]:
        for index in range(20):
            yield {"model_name": "echo", "inputs": [tensor("input", array + index, "FP32")], "request_id": str(index)}

    async def story() -> tuple[list[float], set[str]]:
        async with triton_aio.InferenceServerClient(door.address) as client:
            assert await client.is_server_ready()
            asked = [client.infer("echo", [tensor("input", array + index, "FP32")]) for index in range(20)]
            first = [one.as_numpy("output")[0] for one in await asyncio.gather(*asked)]
            streamed = {
                result.get_response().id async for result, error in client.stream_infer(requests()) if not error
            }
        return first, streamed

    first, streamed = asyncio.run(story())
    assert first == list(range(20))
    assert streamed == {str(index) for index in range(20)}


def test_a_model_is_unloaded_and_loaded_again_in_real_workers(redis_url: str, pool: str, tmp_path: Path) -> None:
    text = tensor("text", np.array(["hello"], dtype=object), "BYTES")
    with (
        workers(redis_url, pool, MODELS),
        gateway(redis_url, pool, tmp_path, doors=("grpc",)) as door,
        triton.InferenceServerClient(door.address) as client,
    ):
        client.unload_model("shout")

        assert not client.is_model_ready("shout")
        with pytest.raises(triton.InferenceServerException) as caught:
            client.infer("shout", [text])
        assert caught.value.status() == str(grpc.StatusCode.NOT_FOUND)

        client.load_model("shout")

        assert client.is_model_ready("shout")
        assert client.infer("shout", [text]).as_numpy("output").tolist() == [b"HELLO"]
