"""Our errors as HTTP says them: the one place where a code becomes a status. Pure.

| code | status | why |
| --- | --- | --- |
| model_error | 422 | the request is well-formed, and this model cannot process it; a 5xx would be retried by proxies |
| cancelled | 499 | nginx's "client closed request": nobody reads it, logs and counters do |
| overloaded | 429 | with Retry-After; a bound was reached, the server works |
| broker_unavailable | 503 | with Retry-After |
| deadline_exceeded | 504 | the door waited for a worker in vain; 408 is for a client that is too slow |
"""

from __future__ import annotations

import math

from common.errors import InferenceError
from gateway.door import retry

STATUS: dict[str, int] = {
    "invalid_request": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "model_not_found": 404,
    "payload_too_large": 413,
    "model_error": 422,
    "overloaded": 429,
    "cancelled": 499,
    "worker_lost": 500,
    "internal_error": 500,
    "config_error": 500,
    "disk_full": 500,
    "model_unavailable": 503,
    "broker_unavailable": 503,
    "repository_unavailable": 503,
    "deadline_exceeded": 504,
}

#: What HTTP itself refuses, before any protocol of ours is spoken.
_HTTP_CODES = {
    400: "invalid_request",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "payload_too_large",
    415: "unsupported_media_type",
    421: "misdirected_request",
    431: "headers_too_large",
    501: "not_implemented",
}
#: After these the rest of the request's body is not read: the connection cannot be used again.
_CLOSING = (408, 413)

Headers = list[tuple[bytes, bytes]]


class Refusal(Exception):
    """HTTP's own no: a path, a method, a media type, a body that does not come. `status` is one of _HTTP_CODES."""

    def __init__(self, status: int, message: str, headers: Headers | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = _HTTP_CODES[status]
        self.message = message
        self.headers = headers or []


Trouble = InferenceError | Refusal


def status_of(trouble: Trouble) -> int:
    return trouble.status if isinstance(trouble, Refusal) else STATUS[trouble.code]


def retry_ms(trouble: Trouble) -> int | None:
    """Milliseconds to wait before the same request again; None where that will not help."""
    return None if isinstance(trouble, Refusal) else retry.retry_ms(trouble)


def headers_of(trouble: Trouble) -> Headers:
    """What an error's status needs beside it, in every dialect. x-should-retry is OpenAI's client's."""
    headers = list(trouble.headers) if isinstance(trouble, Refusal) else []
    headers.append((b"x-error-code", trouble.code.encode()))
    if trouble.code == "unauthenticated":
        headers.append((b"www-authenticate", b'Bearer realm="inference-worker"'))
    if (wait_ms := retry_ms(trouble)) is not None:
        headers.append((b"retry-after", str(math.ceil(wait_ms / 1000)).encode()))
        headers.append((b"retry-after-ms", str(wait_ms).encode()))
    if status_of(trouble) >= 408:
        again = wait_ms is not None or (isinstance(trouble, InferenceError) and trouble.retryable)
        headers.append((b"x-should-retry", b"true" if again else b"false"))
    if status_of(trouble) in _CLOSING:
        headers.append((b"connection", b"close"))
    return headers
