"""Around an inference where the door traces: a span that continues what `traceparent` says of its caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from grpc import StatusCode

from common.errors import InferenceError
from common.tracing import Tracing
from gateway.grpc.endpoint import Request
from gateway.grpc.status import STATUS

_NAME = "inference.GRPCInferenceService/ModelInfer"
#: Names follow OpenTelemetry's conventions for RPC servers.
_ATTRIBUTES = {"rpc.system": "grpc", "rpc.service": "inference.GRPCInferenceService", "rpc.method": "ModelInfer"}
_STATUS = "rpc.grpc.status_code"
#: With these the fault is the door's, or what it asked; with the others its caller's, which fails no server's span.
_SERVER_FAULTS = frozenset(
    (StatusCode.UNKNOWN, StatusCode.DEADLINE_EXCEEDED, StatusCode.INTERNAL, StatusCode.UNAVAILABLE, StatusCode.ABORTED)
)


@contextmanager
def traced(tracing: Tracing, request: Request) -> Iterator[None]:
    """Passes on whatever is raised inside."""
    failed: InferenceError | None = None
    with tracing.serve(_NAME, request.metadata("traceparent", "tracestate"), _ATTRIBUTES) as span:
        try:
            yield
        except InferenceError as error:
            failed = error
        status = STATUS[failed.code] if failed is not None else StatusCode.OK
        span.set_attribute(_STATUS, status.value[0])
        if failed is not None and status in _SERVER_FAULTS:
            tracing.failed(span, failed)
    if failed is not None:
        raise failed
