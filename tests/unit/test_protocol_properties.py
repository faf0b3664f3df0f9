"""What holds for every request and reply, and for any bytes at all."""

from __future__ import annotations

from contextlib import suppress

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import InternalError, InvalidRequest, ModelError, Overloaded, PayloadTooLarge
from common.protocol import (
    MAX_TIMEOUT_MS,
    Reply,
    Request,
    Timings,
    decode_request,
    encode_reply,
    encode_request,
)
from common.tensor import DTYPES, Array, Tensor, from_numpy, numpy_dtype, to_bf16
from gateway.result import Result, read_reply
from tests.support.mutations import mutated

SHAPES = arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=6)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
IDS = st.from_regex(r"[A-Za-z0-9._:=+~-]{1,128}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=("Cs",)))
STRINGS = st.one_of(TEXT, st.binary())
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


def shallow(value: object, depth: int = 0) -> bool:
    """Within the limit on nesting: 8 levels, the parameters' own map being the first."""
    if isinstance(value, dict):
        return depth < 7 and all(shallow(one, depth + 1) for one in value.values())
    if isinstance(value, list):
        return depth < 7 and all(shallow(one, depth + 1) for one in value)
    return True


@st.composite
def string_tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    count = int(np.prod(shape))
    return Tensor("BYTES", shape, draw(st.lists(STRINGS, min_size=count, max_size=count)))


def numeric_arrays(dtype: str) -> st.SearchStrategy[Array]:
    return arrays.arrays(numpy_dtype(dtype), SHAPES)


NUMERIC = [dtype for dtype in DTYPES if dtype not in ("BF16", "BYTES")]
TENSORS = st.one_of(
    string_tensors(),
    numeric_arrays("BF16").map(to_bf16),
    st.sampled_from(NUMERIC).flatmap(numeric_arrays).map(from_numpy),
)
REQUESTS = st.builds(
    Request,
    id=IDS,
    model=NAMES,
    inputs=st.dictionaries(NAMES, TENSORS, min_size=1, max_size=4),
    version=st.none() | NAMES,
    tenant=st.none() | NAMES,
    parameters=st.dictionaries(NAMES, JSON, max_size=4).filter(shallow),
    outputs=st.none() | st.lists(NAMES, min_size=1, max_size=4).map(tuple),
    timeout_ms=st.none() | st.integers(1, MAX_TIMEOUT_MS),
    reply_to=st.none() | TEXT,
    trace=st.none() | st.dictionaries(st.sampled_from(["traceparent", "tracestate"]), TEXT),
)
COUNTS = st.integers(0, 2**63)
REPLIES = st.builds(
    Reply,
    id=IDS,
    model=NAMES,
    version=NAMES,
    outputs=st.dictionaries(NAMES, TENSORS, max_size=4),
    error=st.none(),
    timings=st.builds(Timings, COUNTS, COUNTS, COUNTS, COUNTS),
)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "BYTES"])
@settings(max_examples=40)
@given(data=st.data())
def test_an_array_of_any_dtype_and_shape_comes_back_equal_bit_for_bit(dtype, data):
    array = data.draw(numeric_arrays(dtype))
    tensor = to_bf16(array) if dtype == "BF16" else from_numpy(array)

    received = decode_request(encode_request(Request("id", "model", {"x": tensor}))).inputs["x"]

    assert received.dtype == dtype
    assert received.numpy().shape == array.shape
    assert received.numpy().dtype == array.dtype
    assert received.numpy().tobytes() == tensor.numpy().tobytes()


@given(tensor=string_tensors())
def test_strings_and_bytes_of_any_shape_come_back_equal(tensor):
    received = decode_request(encode_request(Request("id", "model", {"x": tensor}))).inputs["x"]

    assert received == tensor
    assert received.numpy().shape == tensor.shape
    assert received.numpy().reshape(-1).tolist() == tensor.data


@given(request_=REQUESTS)
def test_every_request_comes_back_equal(request_):
    assert decode_request(encode_request(request_)) == request_


@given(reply=REPLIES)
def test_every_reply_comes_back_equal(reply):
    request_id, result = read_reply(encode_reply(reply))

    assert isinstance(result, Result)
    assert (request_id, result.model, result.version) == (reply.id, reply.model, reply.version)
    assert result.timings == reply.timings
    assert {name: result.tensor(name) for name in result.outputs} == reply.outputs


# -- any bytes at all -------------------------------------------------------------------------------------------------

SAMPLE_REQUEST = encode_request(
    Request(
        "6f1c",
        "minilm",
        {
            "text": Tensor("BYTES", (2, 1), ["grüße", b"\xff"]),
            "x": Tensor("FP32", (2, 3), bytes(24)),
            "b": Tensor("BF16", (0,), b""),
        },
        "2",
        "acme",
        {"top_k": 5, "stop": ["a", None], "options": {"lower": True, "temperature": 0.5}},
        ("vector",),
        1500,
        "iw:{gpu}:inbox:client",
        {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
    )
)
SAMPLE_REPLIES = [
    encode_reply(Reply("6f1c", "minilm", "2", {"v": Tensor("FP16", (2,), bytes(4))}, None, Timings(1, 2, 3, 4))),
    encode_reply(Reply("6f1c", "minilm", None, {}, Overloaded("full", 250), Timings())),
    encode_reply(Reply("6f1c", "minilm", None, {}, ModelError("it broke"), Timings())),
]


def decoded_or_refused(data: bytes) -> None:
    """A request with every array looked at, or one of the two errors that the protocol names."""
    try:
        request = decode_request(data)
    except (InvalidRequest, PayloadTooLarge):
        return
    for tensor in request.inputs.values():
        assert tensor.numpy().shape == tensor.shape
    hash((request.id, request.model, request.version))


def an_answer(data: bytes) -> None:
    """A result, an error, or a result whose outputs are one. Nothing is raised where replies are received."""
    request_id, answer = read_reply(data)
    if isinstance(answer, Result):
        with suppress(InternalError):
            hash(tuple(answer.outputs))
        hash((request_id, answer.model, answer.version))


@settings(max_examples=800)
@given(data=mutated([SAMPLE_REQUEST]))
def test_a_mutated_request_is_decoded_or_refused_with_a_typed_error(data):
    decoded_or_refused(data)


@pytest.mark.parametrize("sample", SAMPLE_REPLIES, ids=["answer", "overloaded", "error"])
@settings(max_examples=300)
@given(data=st.data())
def test_a_mutated_reply_is_an_answer_all_the_same(sample, data):
    an_answer(data.draw(mutated([sample])))


@settings(max_examples=300)
@given(data=st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(b"\xdf\xff\xff\xff\xff")
def test_random_bytes_are_refused_with_a_typed_error(data):
    decoded_or_refused(data)
    an_answer(data)


def test_a_request_cut_off_anywhere_is_refused():
    for length in range(len(SAMPLE_REQUEST)):
        with pytest.raises(InvalidRequest, match=r"is truncated|must be a msgpack map"):
            decode_request(SAMPLE_REQUEST[:length])


@pytest.mark.parametrize("sample", SAMPLE_REPLIES, ids=["answer", "overloaded", "error"])
def test_a_reply_cut_off_anywhere_cannot_be_read(sample):
    for length in range(len(sample)):
        _, answer = read_reply(sample[:length])
        assert isinstance(answer, InternalError)


def test_every_single_byte_of_a_request_may_be_anything():
    for at in range(0, len(SAMPLE_REQUEST), 3):
        for value in (0x00, 0x7F, 0x81, 0x91, 0xA1, 0xC1, 0xC7, 0xD4, 0xDD, 0xDF, 0xE0, 0xFF):
            decoded_or_refused(SAMPLE_REQUEST[:at] + bytes([value]) + SAMPLE_REQUEST[at + 1 :])
