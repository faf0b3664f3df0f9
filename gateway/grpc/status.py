"""Our errors as gRPC says them: the one place where a code becomes a status. Pure.

| code | status | why |
| --- | --- | --- |
| model_error | UNKNOWN | what gRPC itself says of a handler that raised; no proxy sends it again |
| worker_lost | ABORTED | it was tried several times already; INTERNAL would be retried by proxies |
| payload_too_large | RESOURCE_EXHAUSTED | what gRPC itself answers to a message over its limit |
| overloaded | RESOURCE_EXHAUSTED | with grpc-retry-pushback-ms; a bound was reached, the server works |
| broker_unavailable | UNAVAILABLE | with grpc-retry-pushback-ms |
"""

from __future__ import annotations

import math

from grpc import StatusCode

from common.errors import InferenceError
from gateway.door.retry import retry_ms

STATUS: dict[str, StatusCode] = {
    "invalid_request": StatusCode.INVALID_ARGUMENT,
    "unauthenticated": StatusCode.UNAUTHENTICATED,
    "permission_denied": StatusCode.PERMISSION_DENIED,
    "model_not_found": StatusCode.NOT_FOUND,
    "payload_too_large": StatusCode.RESOURCE_EXHAUSTED,
    "model_error": StatusCode.UNKNOWN,
    "overloaded": StatusCode.RESOURCE_EXHAUSTED,
    "cancelled": StatusCode.CANCELLED,
    "worker_lost": StatusCode.ABORTED,
    "internal_error": StatusCode.INTERNAL,
    "config_error": StatusCode.INTERNAL,
    "disk_full": StatusCode.INTERNAL,
    "model_unavailable": StatusCode.UNAVAILABLE,
    "broker_unavailable": StatusCode.UNAVAILABLE,
    "repository_unavailable": StatusCode.UNAVAILABLE,
    "deadline_exceeded": StatusCode.DEADLINE_EXCEEDED,
}
#: Clients take 8 KiB of metadata, in which each byte that is not ASCII has three.
_MOST_DETAILS = 2000

Metadata = tuple[tuple[str, str], ...]


def details_of(error: InferenceError) -> str:
    """The error's message, cut to what fits into a client's metadata."""
    encoded = error.message.encode(errors="replace")
    return error.message if len(encoded) <= _MOST_DETAILS else f"{encoded[:_MOST_DETAILS].decode(errors='ignore')}…"


def trailing_of(error: InferenceError) -> Metadata:
    """What goes with an error's status. A negative pushback asks gRPC's own retries not to try (gRFC A6)."""
    wait_ms = retry_ms(error)
    told: Metadata = (("x-error-code", error.code),)
    if wait_ms is None:
        return told if error.retryable else (*told, ("grpc-retry-pushback-ms", "-1"))
    return (
        *told,
        ("retry-after", str(math.ceil(wait_ms / 1000))),
        ("retry-after-ms", str(wait_ms)),
        ("grpc-retry-pushback-ms", str(wait_ms)),
    )
