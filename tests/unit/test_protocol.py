"""Requests and replies: round trips, and a refusal that names field, limit and value for all that is wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import numpy as np
import pytest

from common.errors import (
    WIRE_ERRORS,
    InferenceError,
    InternalError,
    InvalidRequest,
    ModelError,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
)
from common.protocol import (
    MAX_PARAMETER_STRING,
    MAX_TIMEOUT_MS,
    Reply,
    Request,
    Timings,
    check_parameters,
    decode_request,
    encode_reply,
    encode_request,
    request_of,
    sender_of,
)
from common.tensor import to_tensor
from common.wire import MAX_BYTES
from gateway.result import read_reply

FULL = Request(
    id="6f1c",
    model="minilm",
    inputs={"text": to_tensor(["a", "b"]), "scale": to_tensor(1.5)},
    version="2",
    tenant="acme",
    parameters={"top_k": 5, "stop": ["a", None], "options": {"lower": True, "temperature": 0.5}},
    outputs=("vector", "norm"),
    timeout_ms=1500,
    reply_to="iw:{gpu}:inbox:client",
    trace={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
)
LEAST = Request(id="6f1c", model="minilm", inputs={"text": to_tensor("a")})


def message(**changed: Any) -> dict[str, Any]:
    """A well-formed request's map, as it arrives, with some of its fields changed."""
    return {"v": 1, "id": "6f1c", "model": "minilm", "inputs": {"x": tensor()}, **changed}


def tensor() -> dict[str, Any]:
    return {"dtype": "BYTES", "shape": [1], "data": ["a"]}


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode_request(msgpack.packb(data))
    return caught.value.message


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [FULL, LEAST], ids=["every field", "required fields"])
def test_a_request_comes_back_equal(request_):
    assert decode_request(encode_request(request_)) == request_


def test_fields_that_are_not_set_are_not_sent():
    assert msgpack.unpackb(encode_request(LEAST)).keys() == {"v", "id", "model", "inputs"}


@pytest.mark.parametrize("field", ["version", "tenant", "parameters", "outputs", "timeout_ms", "reply_to", "trace"])
def test_an_optional_field_may_be_null(field):
    assert request_of(message(**{field: None})) == request_of(message())


@pytest.mark.parametrize("field", ["v", "id", "model", "inputs"])
def test_a_missing_field_is_named(field):
    data = message()
    del data[field]

    assert refusal(data) == f"{field} is missing"


@pytest.mark.parametrize(
    ("changed", "message_"),
    [
        ({"priority": 1}, "unknown field 'priority'"),
        ({b"\xff": 1}, r"unknown field b'\xff'"),
        ({"v": 2}, "v must be 1; got 2"),
        ({"v": "1"}, "v must be 1; got '1'"),
        ({"v": True}, "v must be 1; got True"),
        ({"v": 1.0}, "v must be 1; got 1.0"),
        ({"v": None}, "v must be 1; got None"),
        ({"v": 2, "priority": 1}, "v must be 1; got 2"),
        ({"id": ""}, "id must be 1 to 128 letters, digits or any of '._:=+~-'; got ''"),
        ({"id": 5}, "id must be 1 to 128 letters, digits or any of '._:=+~-'; got 5"),
        ({"id": None}, "id must be 1 to 128 letters, digits or any of '._:=+~-'; got None"),
        (
            {"model": "a/b"},
            "model must be 1 to 128 letters, digits, '.', '_' or '-', starting with a letter or digit; got 'a/b'",
        ),
        (
            {"version": 2},
            "version must be 1 to 128 letters, digits, '.', '_' or '-', starting with a letter or digit; got 2",
        ),
        (
            {"tenant": "a b"},
            "tenant must be 1 to 128 letters, digits, '.', '_' or '-', starting with a letter or digit; got 'a b'",
        ),
        ({"inputs": []}, "inputs must be a map of names to tensors; got a list of 0"),
        ({"inputs": None}, "inputs must be a map of names to tensors; got None"),
        ({"inputs": {}}, "inputs must hold 1 to 64 tensors; got 0"),
        ({"inputs": {f"x{i}": tensor() for i in range(65)}}, "inputs must hold 1 to 64 tensors; got 65"),
        (
            {"inputs": {"a b": tensor()}},
            "an input name must be 1 to 128 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit; got 'a b'",
        ),
        ({"inputs": {"x": 5}}, "inputs.x must be a map of dtype, shape and data; got 5"),
        ({"inputs": {"x": {"dtype": "BYTES", "shape": [1]}}}, "inputs.x.data is missing"),
        ({"outputs": "vector"}, "outputs must be a list of 1 to 64 names; got 'vector'"),
        ({"outputs": []}, "outputs must be a list of 1 to 64 names; got a list of 0"),
        ({"outputs": ["o"] * 65}, "outputs must be a list of 1 to 64 names; got a list of 65"),
        (
            {"outputs": ["a", 7]},
            "an output name must be 1 to 128 letters, digits, '.', '_' or '-', starting with a letter or digit; got 7",
        ),
        ({"timeout_ms": 0}, f"timeout_ms must be an integer from 1 to {MAX_TIMEOUT_MS}; got 0"),
        ({"timeout_ms": -5}, f"timeout_ms must be an integer from 1 to {MAX_TIMEOUT_MS}; got -5"),
        ({"timeout_ms": 1.5}, f"timeout_ms must be an integer from 1 to {MAX_TIMEOUT_MS}; got 1.5"),
        ({"timeout_ms": True}, f"timeout_ms must be an integer from 1 to {MAX_TIMEOUT_MS}; got True"),
        ({"timeout_ms": 604800001}, f"timeout_ms must be an integer from 1 to {MAX_TIMEOUT_MS}; got 604800001"),
        ({"reply_to": 5}, "reply_to must be a string; got 5"),
        ({"reply_to": b"inbox"}, "reply_to must be a string; got b'inbox'"),
        ({"trace": "00-4b"}, "trace must be a map of traceparent and tracestate; got '00-4b'"),
        ({"trace": {"baggage": ""}}, "trace must be a map of traceparent and tracestate; got a dict of 1"),
        (
            {"trace": {"tracestate": "x" * 513}},
            f"trace.tracestate must be a string of at most 512 characters; got '{'x' * 58}…",
        ),
        ({"trace": {"traceparent": 5}}, "trace.traceparent must be a string of at most 512 characters; got 5"),
    ],
)
def test_a_wrong_field_is_refused_with_its_name_the_limit_and_the_value(changed, message_):
    assert refusal(message() | changed) == message_


@pytest.mark.parametrize(
    ("parameters", "message_"),
    [
        ([], "parameters must be a map; got a list of 0"),
        ("top_k", "parameters must be a map; got 'top_k'"),
        ({"t": float("nan")}, "parameters.t must be a finite number; got nan"),
        ({"t": float("inf")}, "parameters.t must be a finite number; got inf"),
        ({"a": {"b": [1, float("-inf")]}}, "parameters.a.b[1] must be a finite number; got -inf"),
        (
            {"s": "x" * (MAX_PARAMETER_STRING + 1)},
            f"parameters.s must have at most {MAX_PARAMETER_STRING} characters; got {MAX_PARAMETER_STRING + 1}",
        ),
        ({"b": b"raw"}, "parameters.b must be JSON-like; got b'raw'"),
        ({"l": [0] * 1025}, "parameters.l must have at most 1024 elements; got 1025"),
        ({f"p{i}": i for i in range(65)}, "parameters must have at most 64 names; got 65"),
        ({"m": {f"p{i}": i for i in range(65)}}, "parameters.m must have at most 64 names; got 65"),
        ({"": 1}, "parameters must have printable names of 1 to 128 characters; got ''"),
        ({"a\n": 1}, r"parameters must have printable names of 1 to 128 characters; got 'a\n'"),
        ({b"a": 1}, "parameters must have printable names of 1 to 128 characters; got b'a'"),
        ({"x" * 129: 1}, f"parameters must have printable names of 1 to 128 characters; got '{'x' * 58}…"),
        ({"a": [[[[[[[[1]]]]]]]]}, "parameters.a[0][0][0][0][0][0][0] must not nest deeper than 8 levels"),
        (
            {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}},
            "parameters.a.a.a.a.a.a.a.a must not nest deeper than 8 levels",
        ),
    ],
)
def test_wrong_parameters_are_refused_with_their_path_the_limit_and_the_value(parameters, message_):
    assert refusal(message(parameters=parameters)) == message_


@pytest.mark.parametrize(
    "parameters", [{}, {"a": None}, {"a": [True, 1, -1, 0.5, "s", [], {}]}, {"grüße": 1}, {"a": [[[[[[1]]]]]]}]
)
def test_json_like_parameters_pass(parameters):
    assert check_parameters(parameters) == parameters


def test_a_parameter_that_only_python_has_is_refused_before_it_is_sent():
    with pytest.raises(InvalidRequest, match=r"^parameters\.a must be JSON-like; got"):
        check_parameters({"a": np.float32(1)})


def test_a_request_over_the_size_limit_is_refused_when_it_is_encoded():
    large = dataclasses.replace(LEAST, inputs={"x": to_tensor(np.zeros(MAX_BYTES, np.uint8))})

    with pytest.raises(PayloadTooLarge, match=f"^a request must have at most {MAX_BYTES} bytes; got "):
        encode_request(large)


def test_a_request_over_the_size_limit_is_refused_when_it_arrives():
    with pytest.raises(PayloadTooLarge, match=f"^the request must have at most {MAX_BYTES} bytes; got "):
        decode_request(bytes(MAX_BYTES + 1))


def wire_map(**values: bytes) -> bytes:
    """A request's map of values that are encoded already, well or not."""
    return bytes([0x80 | len(values)]) + b"".join(msgpack.packb(name) + value for name, value in values.items())


ID, REPLY_TO, MODEL = (msgpack.packb(text) for text in ("6f1c", "iw:{gpu}:inbox:c", "minilm"))


@pytest.mark.parametrize(
    "broken",
    [
        b"\x05",
        b"\xde\x08\x00" + b"".join(msgpack.packb(str(number)) + b"\xc0" for number in range(2048)),
        b"\x91" * 40 + b"\x90",
        b"\xa2\xff\xfe",
        msgpack.packb(msgpack.ExtType(5, b"extension")),
        msgpack.packb([[0] * 4096] * 300),
    ],
    ids=["no map", "too many entries", "too deep", "no UTF-8", "extension type", "too many values"],
)
def test_the_sender_of_a_broken_request_can_still_be_told(broken):
    data = wire_map(id=ID, inputs=broken, model=MODEL, reply_to=REPLY_TO)

    with pytest.raises(InvalidRequest):
        decode_request(data)
    assert sender_of(data) == ("6f1c", "iw:{gpu}:inbox:c", "minilm")


@pytest.mark.parametrize(
    ("data", "sender"),
    [
        (wire_map(id=msgpack.packb("no good"), reply_to=REPLY_TO), (None, "iw:{gpu}:inbox:c", "")),
        (wire_map(id=ID, reply_to=b"\x05", model=b"\xc0"), ("6f1c", None, "")),
        (wire_map(id=ID, inputs=b"\xdd\xff\xff\xff\xff"), ("6f1c", None, "")),
        (wire_map(), (None, None, "")),
        (b"\xdf\xff\xff\xff\xff", (None, None, "")),
        (b"\x82\x90\xc0\xa2id" + ID, (None, None, "")),
        (b"\x93\xa2id" + ID, (None, None, "")),
        (b"", (None, None, "")),
    ],
)
def test_of_a_sender_as_much_is_known_as_can_be_read(data, sender):
    assert sender_of(data) == sender


# -- replies ----------------------------------------------------------------------------------------------------------

ANSWER = Reply("6f1c", "minilm", "2", {"vector": to_tensor([1.0, 2.0])}, None, Timings(10, 20, 30, 8))


def reply_map(**changed: Any) -> dict[str, Any]:
    return {"v": 1, "id": "6f1c", "model": "m", "version": "2", "outputs": {}, "timings": {}, **changed}


def test_an_answer_comes_back_equal():
    request_id, result = read_reply(encode_reply(ANSWER))

    assert request_id == ANSWER.id
    assert (result.model, result.version, result.timings) == (ANSWER.model, ANSWER.version, ANSWER.timings)
    assert {name: result.tensor(name) for name in result.outputs} == ANSWER.outputs


@pytest.mark.parametrize("kind", WIRE_ERRORS.values(), ids=WIRE_ERRORS)
def test_every_error_comes_back_as_itself(kind):
    sent = Reply("6f1c", "minilm", None, {}, kind("what happened"), Timings())

    _, error = read_reply(encode_reply(sent))

    assert type(error) is kind
    assert error.message == "what happened"


def test_an_error_on_the_wire_says_whether_it_is_retryable():
    sent = Reply("6f1c", "minilm", None, {}, ModelError("it broke"), Timings())

    assert msgpack.unpackb(encode_reply(sent))["error"] == {
        "code": "model_error",
        "message": "it broke",
        "retryable": False,
    }


def test_how_long_to_wait_comes_back_too():
    sent = Reply("6f1c", "minilm", None, {}, Overloaded("full", 250), Timings())

    _, error = read_reply(encode_reply(sent))

    assert isinstance(error, Overloaded)
    assert error.retry_after_ms == 250


def test_an_error_reply_has_no_outputs():
    sent = Reply("6f1c", "minilm", None, {"vector": to_tensor(1)}, ModelNotFound("no"), Timings())

    assert "outputs" not in msgpack.unpackb(encode_reply(sent))


def test_fields_of_a_newer_worker_are_passed_over():
    assert read_reply(msgpack.packb(reply_map(cost=7)))[1].outputs == {}


@pytest.mark.parametrize(
    "broken",
    [
        {"id": 5},
        {"id": ["unhashable"]},
        {"model": None},
        {"version": 2},
        {"outputs": [1]},
        {"outputs": {"vector": 5}},
        {"outputs": {"vector": {"dtype": "FP32", "shape": [2], "data": b""}}},
        {"error": "it broke"},
        {"error": {"message": "no code"}},
        {"error": {"code": "model_error"}},
        {"error": [1]},
        {"timings": 5},
    ],
)
def test_a_malformed_reply_is_an_error_for_whoever_waits_for_it(broken):
    _, answer = read_reply(msgpack.packb(reply_map(**broken)))

    with pytest.raises(InternalError, match="cannot be read"):
        raise answer if isinstance(answer, InternalError) else AssertionError(answer.outputs)


@pytest.mark.parametrize("field", ["id", "model", "version", "outputs"])
def test_a_reply_without_a_field_names_it(field):
    data = reply_map()
    del data[field]

    assert f"'{field}'" in read_reply(msgpack.packb(data))[1].message


def test_a_wait_that_is_no_number_is_none():
    error = {"code": "overloaded", "message": "full", "retry_after_ms": "soon"}

    assert read_reply(msgpack.packb(reply_map(error=error)))[1].retry_after_ms == 0


def test_a_reply_over_the_size_limit_is_refused_when_it_is_encoded():
    large = dataclasses.replace(ANSWER, outputs={"x": to_tensor(np.zeros(MAX_BYTES, np.uint8))})

    with pytest.raises(PayloadTooLarge, match=f"^a reply must have at most {MAX_BYTES} bytes; got "):
        encode_reply(large)


def test_an_error_of_the_base_class_is_still_an_answer():
    sent = Reply("6f1c", "minilm", None, {}, InferenceError("odd"), Timings())

    assert read_reply(encode_reply(sent))[1].message == "odd"


def test_an_errors_message_never_makes_its_reply_too_large() -> None:
    error = InvalidRequest("why: " + "x" * (MAX_BYTES + 1))
    told = msgpack.unpackb(encode_reply(Reply("id", "m", "1", {}, error, Timings())))["error"]["message"]
    assert told == error.message[:4096]
