"""Requests and plain calls by tritonclient's own messages, for tests that look at statuses and metadata."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub


class Said(NamedTuple):
    """How a call ended; `metadata` is what came behind it."""

    code: grpc.StatusCode
    details: str
    metadata: dict[str, str]
    response: Any = None


def request(model: str = "echo", **more: Any) -> Any:
    """One number as input `x`, unless `inputs` says something else."""
    if "inputs" not in more:
        more["inputs"] = [{"name": "x", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [1.0]}}]
    return pb.ModelInferRequest(model_name=model, **more)


def infer(
    channel: grpc.Channel, message: Any, timeout_s: float | None = 20.0, zipped: bool = False, **metadata: str
) -> Said:
    """`cache_control="no-cache"` is the metadata cache-control."""
    return ask(channel, "ModelInfer", message, timeout_s, zipped, **metadata)


def ask(
    channel: grpc.Channel,
    method: str,
    message: Any,
    timeout_s: float | None = 20.0,
    zipped: bool = False,
    **metadata: str,
) -> Said:
    told = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    compression = grpc.Compression.Gzip if zipped else grpc.Compression.NoCompression
    try:
        response, call = getattr(GRPCInferenceServiceStub(channel), method).with_call(
            message, timeout=timeout_s, metadata=told, compression=compression
        )
    except grpc.RpcError as error:
        return Said(error.code(), error.details(), dict(error.trailing_metadata() or ()))
    return Said(call.code(), call.details(), dict(call.trailing_metadata()), response)
