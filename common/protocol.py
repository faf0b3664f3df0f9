"""Requests and replies as values, and their one encoding: docs/protocol.md is this file in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Any, NamedTuple

from common.errors import InferenceError, InvalidRequest, Overloaded, PayloadTooLarge, from_code
from common.names import check_id, check_name, shorten
from common.records import record
from common.tensor import Tensor, from_wire
from common.text import printable
from common.wire import MAX_BYTES, pack, peek, unpack_map

VERSION = 1
#: What a client calls a bare value where it knows no name of the model's only input, or there is not only one.
BARE_INPUT = "input"
MAX_TENSORS = 64
MAX_PARAMETERS = 64
#: A request with this parameter runs in batches of its own, cut by its rows alone: its results are the same bytes
#: whatever else a worker does.
OWN_BATCH = "own_batch"
MAX_PARAMETER_NESTING = 8
MAX_PARAMETER_STRING = 65_536
MAX_PARAMETER_LIST = 1024
MAX_PARAMETER_NAME = 128
MAX_TRACE = 512
MAX_AFFINITY = 256
MAX_TIMEOUT_MS = 7 * 24 * 3600 * 1000

_REQUIRED = frozenset(("v", "id", "model", "inputs"))
_OPTIONAL = frozenset(("version", "tenant", "parameters", "outputs", "timeout_ms", "reply_to", "trace", "affinity"))
_KNOWN = _REQUIRED | _OPTIONAL
_SENDER_FIELDS = frozenset(("id", "reply_to", "model"))
#: Characters of an error's message that are sent: a model may put a whole input into its own.
_MAX_ERROR = 4096
_TRACE_FIELDS = frozenset(("traceparent", "tracestate"))
_NOTHING: Mapping[str, Any] = {}


@record()
class Request:
    """One call of one model. `id` names the computation: two requests with one id share one result.

    Requests of one `affinity` go to one version, where the operator splits a model's requests by key.
    """

    id: str
    model: str
    inputs: Mapping[str, Tensor]
    version: str | None = None
    tenant: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] | None = None
    timeout_ms: int | None = None
    reply_to: str | None = None
    trace: Mapping[str, str] | None = None
    affinity: str | None = None


@record()
class Timings:
    """Where a request's time went, in microseconds, and the batch it ran in.

    `queue_us`: from XADD to the worker's take; `wait_us`: from there to the start of its batch;
    `compute_us`: the model's time for that batch; `batch_rows`: the rows that shared it.
    """

    queue_us: int = 0
    wait_us: int = 0
    compute_us: int = 0
    batch_rows: int = 0


@record()
class Reply:
    """The answer to a request: `outputs` where `error` is None."""

    id: str
    model: str
    version: str | None
    outputs: Mapping[str, Tensor]
    error: InferenceError | None
    timings: Timings


def encode_request(request: Request) -> bytes:
    """The msgpack map for the stream entry's field `d`. Raises InvalidRequest, PayloadTooLarge."""
    message: dict[str, Any] = {
        "v": VERSION,
        "id": request.id,
        "model": request.model,
        "inputs": {name: tensor.to_wire() for name, tensor in request.inputs.items()},
    }
    if request.version is not None:
        message["version"] = request.version
    if request.tenant is not None:
        message["tenant"] = request.tenant
    if request.parameters:
        message["parameters"] = request.parameters
    if request.outputs is not None:
        message["outputs"] = request.outputs
    if request.timeout_ms is not None:
        message["timeout_ms"] = request.timeout_ms
    if request.reply_to is not None:
        message["reply_to"] = request.reply_to
    if request.trace is not None:
        message["trace"] = request.trace
    if request.affinity is not None:
        message["affinity"] = request.affinity
    data = pack(message)
    if len(data) > MAX_BYTES:
        raise PayloadTooLarge(f"a request must have at most {MAX_BYTES} bytes; got {len(data)}")
    return data


def decode_request(data: bytes) -> Request:
    """Raises InvalidRequest or PayloadTooLarge, naming the field, the limit and the value."""
    return request_of(unpack_map("the request", data))


def request_of(message: Mapping[str, Any]) -> Request:
    """A decoded map as a checked Request. Raises InvalidRequest."""
    # The version first: another one may have other fields.
    version = message.get("v", VERSION)
    if version != VERSION or type(version) is not int:
        raise InvalidRequest(f"v must be {VERSION}; got {shorten(version)}")
    names = message.keys()
    if not names >= _REQUIRED:
        raise InvalidRequest(f"{min(_REQUIRED - names)} is missing")
    if not names <= _KNOWN:
        raise InvalidRequest(f"unknown field {min(shorten(name) for name in names - _KNOWN)}")
    get = message.get
    # Most requests leave most of these out: what is not there costs no call.
    return Request(
        check_id(message["id"]),
        check_name("model", message["model"]),
        _inputs_of(message["inputs"]),
        None if (version := get("version")) is None else check_name("version", version),
        None if (tenant := get("tenant")) is None else check_name("tenant", tenant),
        _NOTHING if (parameters := get("parameters")) is None else check_parameters(parameters),
        None if (outputs := get("outputs")) is None else check_outputs(outputs),
        None if (timeout := get("timeout_ms")) is None else _check_timeout(timeout),
        None if (reply_to := get("reply_to")) is None else _check_reply_to(reply_to),
        None if (trace := get("trace")) is None else _check_trace(trace),
        None if (affinity := get("affinity")) is None else check_affinity(affinity),
    )


class Sender(NamedTuple):
    """Whom to tell that a request is refused, and what he asked for: as much of it as can be read."""

    request_id: str | None
    reply_to: str | None
    model: str


def sender_of(data: bytes) -> Sender:
    """The sender of a request that may break the protocol anywhere else. Raises nothing."""
    found = peek(data, _SENDER_FIELDS)
    return Sender(
        _if_valid(check_id, found.get("id")),
        found.get("reply_to"),
        _if_valid(partial(check_name, "model"), found.get("model")) or "",
    )


def _if_valid(check: Callable[[object], str], value: object) -> str | None:
    try:
        return check(value)
    except InvalidRequest:
        return None


def encode_reply(reply: Reply) -> bytes:
    """The msgpack map that is stored under the reply key and pushed to the inboxes."""
    message: dict[str, Any] = {
        "v": VERSION,
        "id": reply.id,
        "model": reply.model,
        "version": reply.version,
        "timings": _timings_to_wire(reply.timings),
    }
    if reply.error is not None:
        message["error"] = _error_to_wire(reply.error)
    else:
        message["outputs"] = {name: tensor.to_wire() for name, tensor in reply.outputs.items()}
    data = pack(message)
    if len(data) > MAX_BYTES:
        raise PayloadTooLarge(f"a reply must have at most {MAX_BYTES} bytes; got {len(data)}")
    return data


def check_parameters(parameters: object) -> Mapping[str, Any]:
    """A JSON-like map: strings, finite numbers, booleans, null, lists and maps."""
    if not isinstance(parameters, Mapping):
        raise InvalidRequest(f"parameters must be a map; got {shorten(parameters)}")
    if parameters:
        _check_json("parameters", parameters, 1)
    return parameters


def check_outputs(outputs: object) -> tuple[str, ...] | None:
    """`outputs` as the names of those that are wanted. Raises InvalidRequest."""
    if outputs is None:
        return None
    if isinstance(outputs, (str, bytes)) or not isinstance(outputs, Sequence) or not 1 <= len(outputs) <= MAX_TENSORS:
        raise InvalidRequest(f"outputs must be a list of 1 to {MAX_TENSORS} names; got {shorten(outputs)}")
    return tuple(check_name("an output name", name) for name in outputs)


def _check_json(where: str, value: object, depth: int) -> None:
    if depth > MAX_PARAMETER_NESTING:
        raise InvalidRequest(f"{where} must not nest deeper than {MAX_PARAMETER_NESTING} levels")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidRequest(f"{where} must be a finite number; got {value}")
    elif isinstance(value, str):
        if len(value) > MAX_PARAMETER_STRING:
            raise InvalidRequest(f"{where} must have at most {MAX_PARAMETER_STRING} characters; got {len(value)}")
    elif isinstance(value, Mapping):
        _check_json_map(where, value, depth)
    elif isinstance(value, (list, tuple)):
        if len(value) > MAX_PARAMETER_LIST:
            raise InvalidRequest(f"{where} must have at most {MAX_PARAMETER_LIST} elements; got {len(value)}")
        for index, one in enumerate(value):
            _check_json(f"{where}[{index}]", one, depth + 1)
    elif value is not None and not isinstance(value, (bool, int)):
        raise InvalidRequest(f"{where} must be JSON-like; got {shorten(value)}")


def _check_json_map(where: str, value: Mapping[Any, Any], depth: int) -> None:
    if len(value) > MAX_PARAMETERS:
        raise InvalidRequest(f"{where} must have at most {MAX_PARAMETERS} names; got {len(value)}")
    for name, one in value.items():
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_PARAMETER_NAME or not name.isprintable():
            raise InvalidRequest(
                f"{where} must have printable names of 1 to {MAX_PARAMETER_NAME} characters; got {shorten(name)}"
            )
        _check_json(f"{where}.{name}", one, depth + 1)


def _inputs_of(inputs: object) -> dict[str, Tensor]:
    if type(inputs) is not dict:
        raise InvalidRequest(f"inputs must be a map of names to tensors; got {shorten(inputs)}")
    if not 1 <= len(inputs) <= MAX_TENSORS:
        raise InvalidRequest(f"inputs must hold 1 to {MAX_TENSORS} tensors; got {len(inputs)}")
    return {name: from_wire(f"inputs.{check_name('an input name', name)}", value) for name, value in inputs.items()}


def _check_timeout(timeout: object) -> int:
    if type(timeout) is not int or not 1 <= timeout <= MAX_TIMEOUT_MS:
        raise InvalidRequest(f"timeout_ms must be an integer from 1 to {MAX_TIMEOUT_MS}; got {shorten(timeout)}")
    return timeout


def _check_reply_to(reply_to: object) -> str:
    if not isinstance(reply_to, str):
        raise InvalidRequest(f"reply_to must be a string; got {shorten(reply_to)}")
    return reply_to


def _check_trace(trace: object) -> Mapping[str, str]:
    if not isinstance(trace, Mapping) or not trace.keys() <= _TRACE_FIELDS:
        raise InvalidRequest(f"trace must be a map of traceparent and tracestate; got {shorten(trace)}")
    for name, value in trace.items():
        if not isinstance(value, str) or len(value) > MAX_TRACE:
            raise InvalidRequest(
                f"trace.{name} must be a string of at most {MAX_TRACE} characters; got {shorten(value)}"
            )
    return trace


def check_affinity(affinity: object) -> str | None:
    """`affinity` as a request's key for splits. Raises InvalidRequest."""
    if affinity is not None and (not isinstance(affinity, str) or not 1 <= len(affinity) <= MAX_AFFINITY):
        raise InvalidRequest(f"affinity must be a string of 1 to {MAX_AFFINITY} characters; got {shorten(affinity)}")
    return affinity


def _timings_to_wire(timings: Timings) -> dict[str, int]:
    return {
        "queue_us": timings.queue_us,
        "wait_us": timings.wait_us,
        "compute_us": timings.compute_us,
        "batch_rows": timings.batch_rows,
    }


def timings_of(timings: Mapping[str, Any]) -> Timings:
    return Timings(
        timings.get("queue_us", 0),
        timings.get("wait_us", 0),
        timings.get("compute_us", 0),
        timings.get("batch_rows", 0),
    )


def _error_to_wire(error: InferenceError) -> dict[str, Any]:
    text = printable(error.message[:_MAX_ERROR])
    message: dict[str, Any] = {"code": error.code, "message": text, "retryable": error.retryable}
    retry_after = getattr(error, "retry_after_ms", None)
    if retry_after is not None:
        message["retry_after_ms"] = retry_after
    return message


def error_of(error: Mapping[str, Any]) -> InferenceError:
    code, message = str(error["code"]), str(error["message"])
    if code == Overloaded.code:
        wait = error.get("retry_after_ms")
        return Overloaded(message, wait if type(wait) is int else 0)
    return from_code(code, message)
