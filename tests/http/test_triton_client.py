"""tritonclient's HTTP clients, unmodified, against a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.support.gateways import Gateway

triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")


@pytest.fixture
def client(door: Gateway) -> Iterator[Any]:
    with triton.InferenceServerClient(door.address) as it:
        yield it


def tensor(name: str, array: Any, dtype: str, binary: bool = True) -> Any:
    found = triton.InferInput(name, list(array.shape), dtype)
    found.set_data_from_numpy(array, binary_data=binary)
    return found


ARRAYS = {
    "BOOL": np.array([[True, False]]),
    "INT8": np.array([-128, 127], dtype=np.int8),
    "UINT64": np.array([2**64 - 1], dtype=np.uint64),
    "INT64": np.arange(6, dtype=np.int64).reshape(2, 3),
    "FP16": np.array([0.5, 65504], dtype=np.float16),
    "FP32": np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32),
    "BF16": np.array([1.0, -2.5], dtype=ml_dtypes.bfloat16),
    "FP64": np.array([1e300, -0.1]),
    "BYTES": np.array([["héllo", ""]], dtype=object),
}


def test_it_sees_a_server_that_lives_is_ready_and_has_the_model(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert client.is_model_ready("echo", "1")
    assert not client.is_model_ready("nobody")


def test_it_reads_metadata_configuration_and_counts(client: Any) -> None:
    client.infer("kept", [tensor("x", np.zeros((1, 3), np.float32), "FP32")])

    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("kept")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert client.get_model_config("kept")["max_batch_size"] == 64
    [counts] = client.get_inference_statistics("kept")["model_stats"]
    assert counts["inference_stats"]["success"]["count"] >= 1
    assert {"name": "echo", "version": "1", "state": "READY", "reason": ""} in client.get_model_repository_index()


#: tritonclient itself sends these two as binary data only.
IN_JSON = [dtype for dtype in ARRAYS if dtype not in ("FP16", "BF16")]


@pytest.mark.parametrize(
    ("dtype", "binary"), [*((dtype, True) for dtype in ARRAYS), *((dtype, False) for dtype in IN_JSON)]
)
def test_every_dtype_comes_back_as_it_went_in_binary_and_as_json(client: Any, dtype: str, binary: bool) -> None:
    array = ARRAYS[dtype]

    output = triton.InferRequestedOutput("output", binary_data=binary)
    found = client.infer("echo", [tensor("input", array, dtype, binary)], outputs=[output]).as_numpy("output")

    expected = np.array([[b"h\xc3\xa9llo", b""]], dtype=object) if dtype == "BYTES" and binary else array
    np.testing.assert_array_equal(found, expected)
    assert found.shape == array.shape


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_request_and_response_can_be_compressed(client: Any, algorithm: str) -> None:
    array = np.zeros((1000,), np.float32)

    found = client.infer(
        "echo", [tensor("input", array, "FP32")],
        request_compression_algorithm=algorithm, response_compression_algorithm=algorithm,
    )  # fmt: skip

    np.testing.assert_array_equal(found.as_numpy("output"), array)


def test_id_version_priority_timeout_and_parameters_go_through(client: Any, worker: Any) -> None:
    before = len(worker.seen)

    found = client.infer(
        "echo", [tensor("input", np.zeros(1, np.float32), "FP32")],
        model_version="1", request_id="r7", priority=1, timeout=5_000_000, parameters={"top_k": 3},
    )  # fmt: skip

    assert found.get_response()["id"] == "r7"
    [seen] = worker.seen[before:]
    assert (seen.version, seen.timeout_ms, seen.parameters) == ("1", 5000, {"top_k": 3})


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (lambda client: client.infer("nobody", [tensor("x", np.zeros(1, np.float32), "FP32")]), "404"),
        (lambda client: client.infer("fails", [tensor("x", np.zeros(1, np.float32), "FP32")]), "422"),
        (lambda client: client.get_system_shared_memory_status(), "501"),
        (lambda client: client.register_cuda_shared_memory("r", b"handle", 0, 8), "501"),
        (lambda client: client.update_log_settings({"log_info": True}), "501"),
    ],
)
def test_an_error_has_its_status_and_says_what_is_wrong(client: Any, call: Any, status: str) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        call(client)

    assert caught.value.status() == status
    assert caught.value.message()


def test_shared_memory_in_a_request_is_refused_clearly(client: Any) -> None:
    shared = triton.InferInput("input", [1], "FP32")
    shared.set_shared_memory("region", 4)

    with pytest.raises(triton.InferenceServerException, match="shared memory is not supported"):
        client.infer("echo", [shared])


def test_the_asyncio_client_works_the_same(door: Gateway) -> None:
    aio = pytest.importorskip("tritonclient.http.aio")

    async def story() -> Any:
        async with aio.InferenceServerClient(door.address) as client:
            assert await client.is_server_ready()
            array = np.arange(3, dtype=np.float32)
            asked = [client.infer("echo", [tensor("input", array + i, "FP32")]) for i in range(20)]
            return [one.as_numpy("output")[0] for one in await asyncio.gather(*asked)]

    assert asyncio.run(story()) == list(range(20))
