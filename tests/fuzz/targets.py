"""Every decoder of bytes that somebody else wrote, as a function that a fuzzer calls.

Each gives back nothing: either the bytes are refused with the errors that its callers know, or what was decoded can
be used. Anything else, such as a KeyError, is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from common.errors import ConfigError, InternalError, InvalidRequest, PayloadTooLarge
from common.keys import PoolKeys
from common.orders import decode_order, decode_report, encode
from common.protocol import decode_request, encode_request, request_of, sender_of
from common.scripts import models_read
from common.tensor import from_wire
from common.tomlfile import TomlFile
from common.traffic import choose, read_plan, read_plans
from common.wire import pack, peek, scan, unpack_map
from gateway.admin.pools import pool_status
from gateway.catalog import Catalog, read_models
from gateway.ensembles.file import parse_ensembles
from gateway.result import Result, read_reply
from gateway.routefile import parse_routes
from inference_worker.models.manifest import parse_toml
from inference_worker.remote.index import parse_index, print_index
from inference_worker.supervision.child import parse_lines

REFUSED = (InvalidRequest, PayloadTooLarge)


def wire(data: bytes) -> None:
    """What the scan takes, msgpack takes; what it built, goes out again."""
    with suppress(*REFUSED):
        scan("it", data)
    with suppress(*REFUSED):
        message = unpack_map("it", data)
        scan("it", data)
        with suppress(InvalidRequest):
            assert isinstance(pack(message), bytes)
    for name, value in peek(data, ("id", "reply_to", "model")).items():
        assert name in ("id", "reply_to", "model")
        assert type(value) is str


def request(data: bytes) -> None:
    sender = sender_of(data)
    hash(sender)
    with suppress(*REFUSED):
        decoded = decode_request(data)
        for tensor in decoded.inputs.values():
            assert tensor.numpy().shape == tensor.shape
        assert decode_request(encode_request(decoded)).id == decoded.id == sender.request_id
        if decoded.reply_to is not None:
            PoolKeys("p").check_inbox(decoded.reply_to)


def request_map(data: bytes) -> None:
    """A map's values under the names of a request, so that the fuzzer need not find those."""
    names = ("inputs", "parameters", "outputs", "timeout_ms", "reply_to", "trace", "affinity", "version")
    with suppress(*REFUSED):
        values = unpack_map("it", data).values()
        request_of({"v": 1, "id": "i", "model": "m", "inputs": {}} | dict(zip(names, values, strict=False)))


def tensor(data: bytes) -> None:
    with suppress(*REFUSED):
        decoded = from_wire("inputs.x", unpack_map("it", data))
        assert decoded.numpy().shape == decoded.shape
        assert from_wire("again", decoded.to_wire()) == decoded


def reply(data: bytes) -> None:
    """Nothing is raised where replies are received."""
    request_id, answer = read_reply(data)
    hash(request_id)
    if isinstance(answer, Result):
        with suppress(InternalError):
            for name in answer.outputs:
                answer.tensor(name)
        hash((answer.model, answer.version, answer.timings))


def published(data: bytes) -> None:
    """A pool's `models` hash: what cannot be read is passed over, and what can be is asked for."""
    catalog = Catalog(read_models({"m:1": data, "n:1": data[1:]}))
    for model in catalog.models:
        assert catalog.find(model.name, model.version) is not None
        hash((model.inputs, model.outputs, model.rows, model.cache_ttl_s))
    names = models_read([data[:4], data])
    assert all(isinstance(name, str) for name in names)


def traffic(data: bytes) -> None:
    with suppress(ConfigError, *REFUSED):
        plan = read_plan(data)
        read_plan(plan.encode())
        str(plan)
        choose(plan, "m", None, {"1": "1", "2": "2"}, "acme", "key", "id")
        choose(plan, "m", "prod", {"1": "1"}, None, None, "id")
    read_plans({"m": data})


def order(data: bytes) -> None:
    with suppress(*REFUSED):
        found = decode_order(data)
        assert decode_order(encode(found)) == found
        hash(found)
        assert found.timeout_ms + 1 > found.timeout_ms


def report(data: bytes) -> None:
    with suppress(*REFUSED):
        found = decode_report(data)
        assert decode_report(encode(found)) == found
        hash(found)


def status(data: bytes) -> None:
    """Everything that `status` reads of a pool."""
    streams = [0, [], {"pending": 0}] * len(PoolKeys("p").streams)
    hashes = {data[:8]: data}
    pool_status("p", 0, streams, {data[:8]: b"1"}, [(data[:8], 1.0)], hashes, hashes, hashes, 0, hashes)


def manifest(data: bytes) -> None:
    with suppress(ConfigError):
        parse_toml(_text(data), "model.toml", "m", "1", Path())


def toml(data: bytes) -> None:
    file = TomlFile("it.toml", _text(data))
    with suppress(ConfigError):
        file.read()
        file.lines()


def routes(data: bytes) -> None:
    with suppress(ConfigError):
        found = parse_routes(_text(data))
        found.explain("m", "1", "acme")
        found.pools()


def ensembles(data: bytes) -> None:
    with suppress(ConfigError):
        parse_ensembles(_text(data))


def index(data: bytes) -> None:
    with suppress(ConfigError):
        entries = parse_index(data, "models.index.json")
        assert parse_index(print_index(entries).encode(), "again") == entries
        for one in entries:
            path = (Path("/root") / one.path).resolve()
            assert path.is_relative_to("/root")


def child_lines(data: bytes) -> None:
    """What a worker process writes to its supervisor: a model may write there too."""
    lines, rest = parse_lines(data)
    assert all(type(line) is dict for line in lines)
    assert b"\n" not in rest


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        wire, request, request_map, tensor, reply, published, traffic, order, report, status,
        manifest, toml, routes, ensembles, index, child_lines,
    )
}  # fmt: skip


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")
