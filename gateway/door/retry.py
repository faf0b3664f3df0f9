"""What to wait before the same request is sent again, as every door tells it. Pure."""

from __future__ import annotations

from common.errors import InferenceError, Overloaded

#: Milliseconds, where the error itself does not say.
_RETRY_MS = {"broker_unavailable": 1000, "model_unavailable": 1000, "repository_unavailable": 1000, "overloaded": 250}


def retry_ms(error: InferenceError) -> int | None:
    """Milliseconds to wait before the same request again; None where that will not help."""
    if isinstance(error, Overloaded) and error.retry_after_ms:
        return error.retry_after_ms
    return _RETRY_MS.get(error.code)
