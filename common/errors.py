"""The error tree, a leaf that imports nothing of ours.

InferenceError                 code                 retryable
|- InvalidRequest              invalid_request      no
|- ModelNotFound               model_not_found      no
|- ModelUnavailable            model_unavailable    no
|- PayloadTooLarge             payload_too_large    no
|- DeadlineExceeded            deadline_exceeded    yes
|- Cancelled                   cancelled            no
|- Overloaded                  overloaded           yes   (retry_after_ms)
|- ModelError                  model_error          no
|- WorkerLost                  worker_lost          no
|- BrokerUnavailable           broker_unavailable   yes
|  `- AccessDenied             broker_unavailable   yes   (read off the wire as BrokerUnavailable)
|- InternalError               internal_error       yes
|- RepositoryUnavailable       repository_unavailable  yes  (never on the wire)
|- DiskFull                    disk_full            yes  (never on the wire)
|- Unauthenticated             unauthenticated      no    (never on the wire: a door's)
|- PermissionDenied            permission_denied    no    (never on the wire: a door's)
`- ConfigError                 config_error         no    (never on the wire)
"""

from __future__ import annotations

from typing import ClassVar


class InferenceError(Exception):
    """Whatever this project raises on purpose. `str()` of it is one line for a person.

    `code` is stable and goes over the wire; `retryable` tells whether the same request
    may succeed when it is sent again unchanged.
    """

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else self.__class__.__name__


class InvalidRequest(InferenceError):
    """The request breaks the protocol or the model's declaration; sending it again will not help."""

    code = "invalid_request"


class ModelNotFound(InferenceError):
    """No worker that took the request serves this model or this version of it."""

    code = "model_not_found"


class ModelUnavailable(InferenceError):
    """The worker offers this model and cannot load it: it fits into no memory here, or its load failed."""

    code = "model_unavailable"


class PayloadTooLarge(InferenceError):
    """A request or a reply is over the size limit."""

    code = "payload_too_large"


class DeadlineExceeded(InferenceError):
    """The request's time ran out before its result was there; nothing computes it any more."""

    code = "deadline_exceeded"
    retryable = True


class Cancelled(InferenceError):
    """The request was cancelled by its client, or its client was closed."""

    code = "cancelled"


class Overloaded(InferenceError):
    """A bound on unfinished work is reached: wait `retry_after_ms` and send the request again.

    `bound` says which one where this client met it: `backlog`, `bytes`, `tenant` or `rate`.
    """

    code = "overloaded"
    retryable = True

    def __init__(self, message: str, retry_after_ms: int = 0, bound: str = "") -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms
        self.bound = bound


class ModelError(InferenceError):
    """The model's own code failed on this request; its batch-mates are not affected."""

    code = "model_error"


class WorkerLost(InferenceError):
    """Workers died each time they ran this request; it is kept as a dead letter."""

    code = "worker_lost"


class BrokerUnavailable(InferenceError):
    """Redis cannot be reached, or does not answer in time."""

    code = "broker_unavailable"
    retryable = True


class AccessDenied(BrokerUnavailable):
    """Redis refuses the user, the password or a permission of the broker URL.

    At the first contact the configuration is wrong. Later a password is being changed, or a permission was taken
    away by mistake: it is waited for, as a Redis that is away is.
    """


class BrokerRefuses(BrokerUnavailable):
    """Redis answers, and refuses for now: it is full, loads its data, or is a replica."""


class InternalError(InferenceError):
    """A fault of this project. This is a bug."""

    code = "internal_error"
    retryable = True


class RepositoryUnavailable(InferenceError):
    """A repository of models cannot be reached; what is in the host's cache is served meanwhile."""

    code = "repository_unavailable"
    retryable = True


class DiskFull(InferenceError):
    """The host's disk is full. When there is room again, the same goes well."""

    code = "disk_full"
    retryable = True


class Unauthenticated(InferenceError):
    """A door was asked without a key that it knows."""

    code = "unauthenticated"


class PermissionDenied(InferenceError):
    """The key is known, and its tenant may not do this."""

    code = "permission_denied"


class ConfigError(InferenceError):
    """A file, a flag or a model folder is wrong; the message names the place and what is expected."""

    code = "config_error"


WIRE_ERRORS: dict[str, type[InferenceError]] = {
    error.code: error
    for error in (
        InvalidRequest,
        ModelNotFound,
        ModelUnavailable,
        PayloadTooLarge,
        DeadlineExceeded,
        Cancelled,
        Overloaded,
        ModelError,
        WorkerLost,
        BrokerUnavailable,
        InternalError,
    )
}


def from_code(code: str, message: str) -> InferenceError:
    """The error for a code read off the wire; a code from a newer peer becomes InternalError."""
    known = WIRE_ERRORS.get(code)
    return known(message) if known else InternalError(f"{code}: {message}")
