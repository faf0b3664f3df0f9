"""Small messages that promise much, and large ones of many small things: they cost bounded memory and time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest

from common.embedded import EmbeddedRedis
from common.protocol import MAX_PARAMETER_LIST, MAX_PARAMETERS
from common.wire import MAX_BYTES

ROOT = Path(__file__).parents[2]
#: Beyond the message itself. common/wire.py tells the worst: 330 MB and 0.9 s for 64 MiB of long strings.
MEGABYTES = 512
SECONDS = 20

TENSOR = {"dtype": "INT8", "shape": [1], "data": b"x"}
TINY = msgpack.packb(TENSOR)


def head(count: int) -> bytes:
    return b"\xdf" + count.to_bytes(4, "big")


def message(**changes: object) -> bytes:
    return msgpack.packb({"v": 1, "id": "i", "model": "m", "inputs": {"x": TENSOR}} | changes)


def with_raw(field: str, raw: bytes) -> bytes:
    """A request in which `field` is whatever `raw` is."""
    sound = {"v": 1, "id": "i", "model": "m"}
    if field != "inputs":
        sound["inputs"] = {"x": TENSOR}
    return bytes([0x80 + len(sound) + 1]) + msgpack.packb(sound)[1:] + msgpack.packb(field) + raw


def tiny_tensors(count: int) -> bytes:
    return head(count) + b"".join(msgpack.packb(f"x{number}") + TINY for number in range(count))


def empty_strings() -> bytes:
    count = 40_000_000
    data = b"\xdd" + count.to_bytes(4, "big") + b"\xa0" * count
    return b"\x81\xa1x\x83\xa5dtype\xa5BYTES\xa5shape\x91\xce" + count.to_bytes(4, "big") + b"\xa4data" + data


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


BOMBS: dict[str, Callable[[], bytes]] = {
    "a million tiny tensors": lambda: with_raw("inputs", tiny_tensors(1_000_000)),
    "a million tiny parameters": lambda: with_raw(
        "parameters", head(1_000_000) + b"".join(msgpack.packb(str(number)) + b"\x01" for number in range(1_000_000))
    ),
    "forty million empty strings": lambda: with_raw("inputs", empty_strings()),
    "a shape of 10^90 elements": lambda: message(
        inputs={"x": {"dtype": "FP64", "shape": [2**31 - 1] * 10, "data": b""}}
    ),
    "a shape of 16 dimensions": lambda: message(
        inputs={"x": {"dtype": "FP64", "shape": [2**31 - 1] * 16, "data": b""}}
    ),
    "a hidden zero": lambda: message(inputs={"x": {"dtype": "INT8", "shape": [0, *[2**31 - 1] * 15], "data": b""}}),
    "a shape of a million ones": lambda: message(
        inputs={"x": {"dtype": "INT8", "shape": [1] * 1_000_000, "data": b"x"}}
    ),
    "strings that are not there": lambda: message(inputs={"x": {"dtype": "BYTES", "shape": [1_000_000], "data": []}}),
    "lists that are not there": lambda: with_raw("inputs", b"\xdd\xff\xff\xff\xff"),
    "nested lists that are not there": lambda: with_raw("inputs", b"\xdd\x00\x0f\xff\xff" * 200_000),
    "a map that is not there": lambda: with_raw("inputs", head(2**32 - 1)),
    "bytes that are not there": lambda: with_raw("inputs", b"\xc6\xff\xff\xff\xff"),
    "100,000 levels": lambda: with_raw("parameters", b"\x91" * 100_000 + b"\x01"),
    "17 levels of parameters": lambda: message(parameters={"a": nested(17)}),
    "a key of 60 MB": lambda: with_raw(
        "inputs", b"\x81\xdb" + (60 << 20).to_bytes(4, "big") + b"x" * (60 << 20) + TINY
    ),
    "an id of 60 MB": lambda: message(id="x" * (60 << 20)),
    "wide parameters at each level": lambda: message(
        parameters={str(n): [list(range(MAX_PARAMETER_LIST))] * 200 for n in range(MAX_PARAMETERS)}
    ),
    "one byte too many": lambda: b"\x81" * (MAX_BYTES + 1),
    "64 MiB of one-byte maps": lambda: b"\x81" * MAX_BYTES,
    "64 MiB of empty lists": lambda: with_raw("inputs", b"\xdd\x00\x0f\xff\xff" + b"\x90" * (60 << 20)),
}


def bounded(folder: Path, data: bytes, decoder: str) -> tuple[int, str]:
    """(megabytes that it took, what became of it)"""
    path = folder / "bomb"
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.bounded", path, str(MEGABYTES), str(SECONDS), decoder],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    path.unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    megabytes, _, outcome = done.stdout.partition(" ")
    return int(megabytes), outcome


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_request_that_is_one_is_refused_within_bounds(bomb: Callable[[], bytes], tmp_path: Path) -> None:
    megabytes, outcome = bounded(tmp_path, bomb(), "request")

    assert outcome.startswith("refused: "), outcome
    assert megabytes <= MEGABYTES


@pytest.mark.parametrize("name", ["a million tiny tensors", "64 MiB of one-byte maps", "lists that are not there"])
@pytest.mark.parametrize("decoder", ["reply", "plan"])
def test_so_is_a_reply_or_a_plan(decoder: str, name: str, tmp_path: Path) -> None:
    _, outcome = bounded(tmp_path, BOMBS[name](), decoder)

    assert outcome.startswith("refused: "), outcome


def test_the_largest_sound_request_stays_within_them(tmp_path: Path) -> None:
    strings = {"dtype": "BYTES", "shape": [1_000_000], "data": ["x" * 40] * 1_000_000}

    _, outcome = bounded(tmp_path, message(inputs={"x": strings}), "request")

    assert outcome.startswith("decoded 1"), outcome


def test_redis_itself_takes_no_larger_message_where_it_is_told_so() -> None:
    """deploy/redis/single.conf says so: without it a raw producer may store 512 MB, which a worker would read whole."""
    settings = (ROOT / "deploy" / "redis" / "single.conf").read_text().splitlines()
    [line] = [line for line in settings if "bulk-len" in line]
    from common.connect import broker_errors, connect
    from common.errors import BrokerUnavailable, InternalError

    with EmbeddedRedis(config=[line]) as server, connect(server.url) as client:
        assert client.set("largest", b"x" * MAX_BYTES)
        with pytest.raises((BrokerUnavailable, InternalError)), broker_errors():
            client.set("larger", b"x" * (MAX_BYTES + 1))
