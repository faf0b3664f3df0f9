"""Triton's extensions that speak by parameters: schedule_policy, model_repository, and what is refused. Pure.

https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.errors import InvalidRequest
from common.names import check_name, check_pool, shorten
from gateway.call import Call

#: Triton's 1 is the most urgent, and 0 is as if nothing were said.
_PRIORITIES = {0: "normal", 1: "high", 2: "normal"}
_MICROSECONDS = 1_000_000
#: Of a request: they are the protocol's, and no parameters of the model.
_RESERVED = frozenset(("priority", "timeout", "binary_data_output", "triton_enable_empty_final_response"))
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_SHARED_MEMORY = "shared_memory_region"
_MAX_ID = 256

NO_SHARED_MEMORY = "shared memory is not supported, as workers may run on other hosts; send binary data"
#: Triton's calls that there is nothing for, and why.
UNSUPPORTED = {
    "systemsharedmemory": NO_SHARED_MEMORY,
    "cudasharedmemory": f"CUDA {NO_SHARED_MEMORY}",
    "trace": "trace settings are not supported",
    "logging": "the log level is set by --log-level, when the gateway starts",
}


def call_of(
    model: str, version: str | None, parameters: Mapping[str, Any], wanted: tuple[str, ...] | None, cacheable: bool
) -> Call:
    """`parameters` of the request; what is not the protocol's goes to the model. Raises InvalidRequest."""
    for name in _SEQUENCE:
        if parameters.get(name):
            raise InvalidRequest(f"parameters.{name}: sequences of requests are not supported")
    own = {name: value for name, value in parameters.items() if name not in _RESERVED and name not in _SEQUENCE}
    priority = parameters.get("priority", 0)
    if type(priority) is not int or priority < 0:
        raise InvalidRequest(f"parameters.priority must be an integer, 1 the most urgent; got {shorten(priority)}")
    return Call(
        model, version, own or None, wanted, _PRIORITIES.get(priority, "low"), _timeout_s(parameters.get("timeout")),
        cache=cacheable,
    )  # fmt: skip


def check_id(value: object) -> str | None:
    """A request's own name, "" as if there were none. Raises InvalidRequest."""
    if value is not None and (not isinstance(value, str) or len(value) > _MAX_ID):
        raise InvalidRequest(f"id must be a string of at most {_MAX_ID} characters; got {shorten(value)}")
    return value or None


def ordered(model: object, parameters: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """(model, version, pool) of a call to load or unload; None: all versions, its own pool. Raises InvalidRequest."""
    version, pool = parameters.get("version"), parameters.get("pool")
    return (
        check_name("model", model),
        None if version is None else check_name("parameters.version", version),
        None if pool is None else check_pool(pool),
    )


def refuse_shared_memory(field: str, parameters: Mapping[str, Any]) -> None:
    """Of one input or output. Raises InvalidRequest."""
    if _SHARED_MEMORY in parameters:
        raise InvalidRequest(f"{field}.parameters.{_SHARED_MEMORY}: {NO_SHARED_MEMORY}")


def refuse_classification(field: str, parameters: Mapping[str, Any]) -> None:
    """Of one output. Raises InvalidRequest."""
    if parameters.get("classification"):
        raise InvalidRequest(f"{field}.parameters.classification is not supported: sort the scores")


def _timeout_s(timeout: object) -> float | None:
    """Triton's microseconds; 0 is as if nothing were said."""
    if timeout is None or timeout == 0:
        return None
    if type(timeout) is not int or timeout < 0:
        raise InvalidRequest(f"parameters.timeout must be an integer of microseconds; got {shorten(timeout)}")
    return timeout / _MICROSECONDS
