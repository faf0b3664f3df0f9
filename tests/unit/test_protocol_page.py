"""docs/protocol.md is a promise to clients in other languages: its tables and examples are compared with the code."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import msgpack
import pytest

from common import names, protocol, scripts, tensor, wire
from common.digest import request_digest
from common.errors import WIRE_ERRORS, InvalidRequest
from common.keys import PoolKeys
from common.protocol import Reply, Request, Timings, decode_request, encode_reply, encode_request
from common.tensor import DTYPES, Tensor, item_size
from common.traffic import SUBJECTS, Plan
from gateway.payload import INLINE_UP_TO
from gateway.result import Result, read_reply
from inference_worker.cli.worker import command as worker_command
from inference_worker.models.loading import Opener, find_models
from inference_worker.models.metadata import metadata
from inference_worker.models.registry import Registry, Title
from inference_worker.prepare import MAX_ROWS
from inference_worker.shares import WEIGHTS

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
MODELS = Path(__file__).parents[1] / "support" / "models" / "interop.py"
OPTIONS = {option.name: option.default for option in worker_command.params}

LIMITS: dict[str, Any] = {
    "message": wire.MAX_BYTES,
    "id": names.MAX_ID,
    "name": names.MAX_NAME,
    "partition": 4,
    "tensors": protocol.MAX_TENSORS,
    "rank": tensor.MAX_RANK,
    "dimension": tensor.MAX_DIMENSION,
    "strings": tensor.MAX_STRINGS,
    "rows": MAX_ROWS,
    "parameters": protocol.MAX_PARAMETERS,
    "parameter list": protocol.MAX_PARAMETER_LIST,
    "parameter string": protocol.MAX_PARAMETER_STRING,
    "parameter name": protocol.MAX_PARAMETER_NAME,
    "parameter nesting": protocol.MAX_PARAMETER_NESTING,
    "trace": protocol.MAX_TRACE,
    "affinity": protocol.MAX_AFFINITY,
    "timeout": protocol.MAX_TIMEOUT_MS,
    "nesting": wire.MAX_NESTING,
    "map": wire.MAX_MAP,
    "list": wire.MAX_LIST,
    "values": wire.MAX_VALUES,
    "pushed reply": scripts.PUSH_WHOLE_UP_TO,
    "inbox lifetime": scripts.INBOX_LIFETIME_MS // 1000,
    "reply lifetime": OPTIONS["reply_ttl_s"],
    "deliveries": OPTIONS["max_deliveries"],
    "backlog": scripts.DEFAULT_BACKLOG,
    "tenant": scripts.DEFAULT_TENANT,
    "light": scripts.DEFAULT_LIGHT,
    "dead letters": scripts.MAX_DEAD_LETTERS,
    "models lifetime": scripts.PRESENCE_MS // 1000,
}


def test_the_limits_are_those_of_the_code() -> None:
    stated = {name: int(value.replace(",", "")) for name, value, _ in table("limit", "value", "of")}

    assert stated == LIMITS


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    high, normal, low = WEIGHTS

    assert f"take {high}, {normal}, and {low} of each {sum(WEIGHTS)}" in PAGE
    assert f"From about {INLINE_UP_TO // 1024} KiB on" in PAGE
    assert f"a reply over {scripts.PUSH_WHOLE_UP_TO:,} bytes" in PAGE
    assert f"1 to {protocol.MAX_TIMEOUT_MS:,}" in PAGE


def test_the_error_codes_are_those_of_the_code() -> None:
    stated = {code(name): retryable for name, retryable, _, _ in table("code", "retryable", "who says it", "when")}

    assert stated == {name: "yes" if error.retryable else "no" for name, error in WIRE_ERRORS.items()}


def test_the_dtypes_are_those_of_the_code() -> None:
    stated = {code(name): size for name, size, _ in table("dtype", "bytes", "`data`")}

    assert stated == {name: "–" if name == "BYTES" else str(item_size(name)) for name in DTYPES}


def test_the_request_table_has_every_field_and_says_which_are_required() -> None:
    rows = table("field", "type", "default", "meaning")
    required = {"v": 1, "id": "r-1", "model": "m", "inputs": {"x": {"dtype": "INT8", "shape": [], "data": b"\0"}}}
    optional = {
        "version": "1",
        "tenant": "t",
        "parameters": {"a": None},
        "outputs": ["y"],
        "timeout_ms": 1,
        "reply_to": "iw:{p}:inbox:me",
        "trace": {"traceparent": "00", "tracestate": "a=b"},
        "affinity": "user-17",
    }

    assert {code(name) for name, _, default, _ in rows if default == "required"} == required.keys()
    assert {code(name) for name, *_ in rows} == required.keys() | optional.keys()
    decode_request(wire.pack({**required, **optional}))
    decode_request(wire.pack({**required, **dict.fromkeys(optional)}))
    for name in required:
        with pytest.raises(InvalidRequest, match=f"^{name} is missing"):
            decode_request(wire.pack({key: value for key, value in required.items() if key != name}))


def test_parameters_nest_as_deep_as_the_page_says() -> None:
    deepest: Any = 1
    for _ in range(LIMITS["parameter nesting"] - 1):
        deepest = {"a": deepest}

    protocol.check_parameters(deepest)
    with pytest.raises(InvalidRequest, match="nest"):
        protocol.check_parameters({"a": deepest})


def test_the_published_fields_are_those_of_the_code() -> None:
    registry = Registry()
    (spec,) = [spec for spec in find_models([str(MODELS)], None) if spec.name == "double"]
    registry.replace("double", [Title(spec, Opener("cpu", 1).weights(spec))])
    published = msgpack.unpackb(metadata(registry)["double:1"])

    section = PAGE.partition("## Published models")[2].partition("\n## ")[0]
    stated = {name for cells in rows_of(section) for name in re.findall(r"`(\w+)`", cells[0])}

    assert stated == published.keys()
    assert published["inputs"][0].keys() == {"name", "dtype", "shape"}


def test_the_fields_of_a_traffic_plan_are_those_of_the_code() -> None:
    section = PAGE.partition("## Traffic")[2].partition("\n## ")[0]
    stated = {code(cells[0]) for cells in rows_of(section) if cells[0] != "field"}

    assert stated == msgpack.unpackb(Plan({"prod": "1"}).encode()).keys()
    assert all(f"`{subject}`" in section for subject in SUBJECTS)


def test_the_keys_are_those_of_the_code() -> None:
    keys = PoolKeys("POOL")
    stated = {
        name for cells in table("key", "type", "who writes it", "lives") for name in re.findall(r"`([^`]+)`", cells[0])
    }

    assert stated == {
        *(stream if ":high" in stream else stream[len("iw:{POOL}") :] for stream in keys.streams),
        keys.inbox("NAME"),
        keys.reply("ID"),
        keys.payload("ID"),
        keys.models,
        keys.limits,
        keys.traffic,
        keys.unloaded,
        keys.control,
        keys.dead,
        "iw:pools",
    }


def test_the_request_in_hexadecimal_is_what_the_code_encodes_and_decodes() -> None:
    request = Request("r-1", "double", {"x": fp32("0000803f 000000c0")}, timeout_ms=5000, reply_to="iw:{demo}:inbox:me")

    assert encode_request(request) == hex_block("request")
    assert decode_request(hex_block("request")) == request
    assert decode_request(hex_block("request")).inputs["x"].numpy().tolist() == [1.0, -2.0]


def test_the_reply_in_hexadecimal_is_what_the_code_encodes_and_decodes() -> None:
    reply = Reply("r-1", "double", "1", {"y": fp32("00000040 000080c0")}, None, Timings(412, 35, 120, 1))

    assert encode_reply(reply) == hex_block("reply")
    request_id, result = read_reply(hex_block("reply"))
    assert isinstance(result, Result)
    assert (request_id, result.model, result.version, result.timings) == ("r-1", "double", "1", reply.timings)
    assert result.tensor("y") == reply.outputs["y"]


def test_the_error_in_hexadecimal_is_what_a_request_of_another_version_gets() -> None:
    request = msgpack.unpackb(hex_block("request"))
    with pytest.raises(InvalidRequest) as refused:
        protocol.request_of({**request, "v": 2})

    assert encode_reply(Reply("r-1", "double", None, {}, refused.value, Timings())) == hex_block("error")


def test_the_digest_of_the_worked_example_is_what_the_code_computes() -> None:
    stated = re.search(r"Its id is `(.*?)`", PAGE)
    inputs = {"x": fp32("0000803f 000000c0"), "note": Tensor("BYTES", (2,), ["ä", b"\xff"])}
    parameters = {"top_k": 3, "mix": {"b": 1.0, "a": [True, None]}}

    assert stated is not None
    assert request_digest("acme", "double", "1", "5f3c", parameters, inputs, ("y",)) == stated[1]
    assert "b2:" + hashlib.blake2b(hex_block("digest"), digest_size=20).hexdigest() == stated[1]


def fp32(digits: str) -> Tensor:
    return Tensor("FP32", (2,), bytes.fromhex(digits))


def table(*heads: str) -> list[list[str]]:
    """The cells of the page's table with those heads, row by row."""
    _, found, after = PAGE.partition("| " + " | ".join(heads) + " |\n")
    assert found, f"docs/protocol.md has no table with the heads {heads}"
    return rows_of(after.partition("\n\n")[0])


def rows_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def code(cell: str) -> str:
    return cell.strip("`")


def hex_block(name: str) -> bytes:
    """The bytes of the block "```hex name": digits before each line's comment."""
    block = PAGE.partition(f"```hex {name}\n")[2].partition("```")[0]
    return bytes.fromhex(" ".join(line.partition("#")[0] for line in block.splitlines()))
