"""Single calls by plain messages: contents of every kind, what is refused, deadlines, going away."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.support.echo_worker import EchoWorker
from tests.support.gateways import Gateway, gateway
from tests.support.grpc import ask, infer, request
from tests.support.waiting import wait_until

Code = grpc.StatusCode


def tensor(datatype: str, shape: list[int], **contents: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape, "contents": contents}


# Contents


@pytest.mark.parametrize(
    ("datatype", "field", "values", "raw"),
    [
        ("BOOL", "bool_contents", [True, False], b"\1\0"),
        ("INT8", "int_contents", [-128, 127], b"\x80\x7f"),
        ("INT16", "int_contents", [-2], b"\xfe\xff"),
        ("INT32", "int_contents", [-(2**31)], b"\0\0\0\x80"),
        ("INT64", "int64_contents", [1], b"\1" + b"\0" * 7),
        ("UINT8", "uint_contents", [255], b"\xff"),
        ("UINT16", "uint_contents", [258], b"\2\1"),
        ("UINT32", "uint_contents", [2**32 - 1], b"\xff" * 4),
        ("UINT64", "uint64_contents", [2**64 - 1], b"\xff" * 8),
        ("FP32", "fp32_contents", [1.0], b"\0\0\x80\x3f"),
        ("FP64", "fp64_contents", [1.0], b"\0" * 6 + b"\xf0\x3f"),
        ("BYTES", "bytes_contents", [b"ab", b"\xff"], b"\2\0\0\0ab\1\0\0\0\xff"),
        ("FP32", "fp32_contents", [], b""),
    ],
)
def test_typed_contents_arrive_as_the_same_raw_bytes_would(
    channel: Any, datatype: str, field: str, values: list[Any], raw: bytes
) -> None:
    message = request(inputs=[tensor(datatype, [len(values)], **{field: values})])

    response = infer(channel, message).response

    assert list(response.raw_output_contents) == [raw]
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == (datatype, [len(values)])


ONE = {"name": "x", "datatype": "FP32", "shape": [1]}


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (
            request(inputs=[tensor("FP32", [2], fp32_contents=[1])]),
            "inputs.x.contents.fp32_contents must hold 2 values",
        ),
        (request(inputs=[tensor("FP32", [1], int_contents=[1])]), "inputs.x.contents.fp32_contents must hold 1 values"),
        (request(inputs=[tensor("INT8", [1], int_contents=[128])]), "inputs.x.contents must hold integers from -128"),
        (request(inputs=[tensor("FP16", [1], fp32_contents=[1])]), "inputs.x must come in raw_input_contents"),
        (request(inputs=[tensor("FP31", [1])]), "inputs.x.datatype must be one of"),
        (request(inputs=[tensor("FP32", [-1])]), "inputs.x.shape must hold integers"),
        (request(inputs=[tensor("FP32", [2**31 - 1] * 3)]), "inputs.x.contents.fp32_contents must hold"),
        (request(inputs=[ONE], raw_input_contents=[b"abc"]), "inputs.x must have 4 bytes of binary data"),
        (request(inputs=[ONE], raw_input_contents=[b"abcd"] * 2), "raw_input_contents must hold one for each of 1"),
        (request(raw_input_contents=[b"abcd"]), "inputs.x must come in raw_input_contents or in contents; got both"),
        (request(inputs=[ONE, ONE], raw_input_contents=[b"abcd"] * 2), "inputs[1].name 'x' is there twice"),
        (request(inputs=[]), "inputs must hold 1 to"),
        (request(outputs=[{"name": ""}]), "outputs[0].name"),
        (request(outputs=[{"name": "x", "parameters": {"classification": {"int64_param": 3}}}]), "outputs[0].param"),
        (request(parameters={"x": pb.InferParameter()}), "parameters.x must have a value"),
        (request(parameters={"priority": {"string_param": "1"}}), "parameters.priority must be an integer"),
        (request(id="i" * 300), "id must be a string of at most 256 characters"),
    ],
)
def test_what_is_wrong_is_named(channel: Any, message: Any, says: str) -> None:
    said = infer(channel, message)

    assert said.code is Code.INVALID_ARGUMENT
    assert said.details.startswith(says)
    assert said.metadata["x-error-code"] == "invalid_request"


def test_bytes_that_are_no_message_are_refused_and_fill_no_log(channel: Any, door: Gateway) -> None:
    before = len(door.printed)
    for method in ("ModelInfer", "ModelMetadata"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"\xff\xff", timeout=20)
        assert caught.value.code() is Code.INVALID_ARGUMENT
    stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    good = request(id="b").SerializeToString()

    found = [pb.ModelStreamInferResponse.FromString(one) for one in stream(iter([b"\xff", good]), timeout=20)]

    assert {one.infer_response.id: bool(one.error_message) for one in found} == {"": True, "b": False}
    assert len(door.printed) == before


def test_only_the_outputs_that_are_asked_for_are_wanted(channel: Any, worker: EchoWorker) -> None:
    infer(channel, request(outputs=[{"name": "x", "parameters": {"binary_data": {"bool_param": True}}}]))

    assert worker.seen[-1].outputs == ("x",)


def test_a_kept_result_says_so_and_no_cache_computes_it_anew(channel: Any, worker: EchoWorker) -> None:
    message = request("kept", inputs=[tensor("FP32", [1, 3], fp32_contents=[7, 8, 9])])
    infer(channel, message)

    assert infer(channel, message).metadata.get("x-cache") == "hit"
    before = len(worker.seen)
    assert "x-cache" not in infer(channel, message, cache_control="no-cache").metadata
    assert len(worker.seen) == before + 1


# Limits


def test_a_large_message_goes_both_ways_and_one_over_the_limit_is_refused(
    redis_url: str, worker: EchoWorker, tmp_path: Path
) -> None:
    with (
        gateway(redis_url, worker.broker.pool, tmp_path, "--max-body", "8MiB", doors=("grpc",)) as door,
        grpc.insecure_channel(door.address, options=[("grpc.max_receive_message_length", -1)]) as channel,
    ):
        values = np.arange(1_800_000, dtype=np.float32).tobytes()
        shape = {"name": "x", "datatype": "FP32", "shape": [1_800_000]}

        assert infer(channel, request(inputs=[shape], raw_input_contents=[values])).response.raw_output_contents == [
            values
        ]
        refused = infer(channel, request(inputs=[shape], raw_input_contents=[values * 2]))
        assert refused.code is Code.RESOURCE_EXHAUSTED
        bomb = infer(channel, request(inputs=[shape], raw_input_contents=[b"\0" * 30_000_000]), zipped=True)
        assert bomb.code is Code.RESOURCE_EXHAUSTED


def test_over_its_limit_the_door_says_when_to_come_again(
    redis_url: str, pool: str, tmp_path: Path, redis_client: Any
) -> None:
    gate = threading.Event()
    options = ("--concurrency", "1", "--queue", "0")
    with (
        EchoWorker(redis_url, pool, gate=gate) as worker,
        gateway(redis_url, pool, tmp_path, *options, doors=("grpc",)) as door,
        grpc.insecure_channel(door.address) as channel,
    ):
        first = GRPCInferenceServiceStub(channel).ModelInfer.future(request())
        wait_until(lambda: redis_client.xlen(worker.broker.keys.streams[1]), "the first is in its stream")
        refused = infer(channel, request())
        gate.set()

        assert first.result(20).outputs
        assert refused.code is Code.RESOURCE_EXHAUSTED
        assert int(refused.metadata["grpc-retry-pushback-ms"]) > 0


# Deadlines and going away


def test_a_deadline_is_the_requests_timeout_unless_its_own_is_shorter(channel: Any, worker: EchoWorker) -> None:
    infer(channel, request(), timeout_s=20)
    infer(channel, request(parameters={"timeout": {"int64_param": 3_000_000}}), timeout_s=20)

    infer(channel, request(), timeout_s=None)

    by_deadline, by_parameter, by_default = [one.timeout_ms for one in worker.seen[-3:]]
    # gRPC itself rounds a deadline up on its way.
    assert 10_000 < by_deadline < 21_000
    assert (by_parameter, by_default) == (3000, 60_000)


def test_a_client_that_goes_away_or_whose_deadline_passes_cancels_its_work(
    redis_url: str, pool: str, tmp_path: Path, redis_client: Any
) -> None:
    gate = threading.Event()
    with (
        EchoWorker(redis_url, pool, gate=gate) as worker,
        gateway(redis_url, pool, tmp_path, doors=("grpc",)) as door,
        grpc.insecure_channel(door.address) as channel,
    ):
        keys = worker.broker.keys
        going = GRPCInferenceServiceStub(channel).ModelInfer.future(request())
        wait_until(lambda: redis_client.xlen(keys.streams[1]), "the request is in its stream")
        going.cancel()
        wait_until(lambda: redis_client.scard(keys.cancelled) == 1, "it is marked as cancelled")

        assert infer(channel, request(), timeout_s=0.3).code is Code.DEADLINE_EXCEEDED
        wait_until(lambda: redis_client.scard(keys.cancelled) == 2, "the late one is marked, too")

        gate.set()
        wait_until(lambda: not redis_client.xlen(keys.streams[1]), "the worker has passed both over")
        assert worker.seen == []


def test_without_a_worker_a_model_is_not_ready(redis_url: str, pool: str, tmp_path: Path, broker: Any) -> None:
    with (
        gateway(redis_url, pool, tmp_path, doors=("grpc",)) as door,
        grpc.insecure_channel(door.address) as channel,
    ):
        assert ask(channel, "ServerReady", pb.ServerReadyRequest()).response.ready
        assert not ask(channel, "ModelReady", pb.ModelReadyRequest(name="echo")).response.ready
