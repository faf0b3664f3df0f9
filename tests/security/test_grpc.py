"""The gRPC door before strangers: what it takes of them costs bounded memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.command import ROOT, CommandLine
from tests.support.gateways import gateway, new_key

grpc = pytest.importorskip("grpc", reason="needs the extra grpc")
psutil = pytest.importorskip("psutil", reason="needs psutil")

MIB = 1 << 20
MEGABYTES = 512
SECONDS = 5
SERVICE = "/inference.GRPCInferenceService"


def field(number: int, data: bytes) -> bytes:
    size, length = b"", len(data)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + data


def in_input(data: bytes) -> bytes:
    return field(5, data)


BOMBS: dict[str, Callable[[], bytes]] = {
    "30 million empty inputs": lambda: b"\x2a\x00" * (30 * MIB),
    "30 million empty outputs": lambda: b"\x32\x00" * (30 * MIB),
    "30 million empty raw contents": lambda: b"\x3a\x00" * (30 * MIB),
    "30 million parameters of an input": lambda: in_input(b"\x22\x00" * (30 * MIB)),
    "30 million parameters of an output": lambda: field(6, b"\x12\x00" * (30 * MIB)),
    "a shape of 60 million dimensions": lambda: in_input(field(3, b"\x01" * (60 * MIB))),
    "30 million empty strings": lambda: in_input(field(5, b"\x42\x00" * (30 * MIB))),
    "4 x 15 million integers": lambda: in_input(field(5, field(3, b"\x01" * (15 * MIB)))) * 4,
    "tags that never end": lambda: b"\xff" * (60 * MIB),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_message_of_many_pieces_is_refused_before_it_is_read(bomb: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(bomb())

    done = subprocess.run(
        [sys.executable, "-m", "tests.support.bounded", path, str(MEGABYTES), str(SECONDS), "grpc"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    megabytes, _, outcome = done.stdout.partition(" ")
    assert outcome.startswith("refused: "), done.stderr[-2000:]
    assert int(megabytes) < 16


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer", "ServerLive", "TraceSetting"])
def test_of_whom_no_key_is_known_no_message_is_taken(method: str, redis_url: str, shell: CommandLine) -> None:
    new_key(shell, "acme")
    keys = str(shell.folder / "keys.json")
    with (
        gateway(redis_url, "anywhere", shell.folder, "--keys", keys, doors=("grpc",)) as door,
        grpc.insecure_channel(door.address, [("grpc.max_send_message_length", -1)]) as channel,
    ):
        [child] = psutil.Process(door.process.pid).children()
        before = peak_mb(child.pid)
        message = field(7, bytes(60 * MIB))

        with ThreadPoolExecutor(8) as threads:
            ends = set(threads.map(lambda _: end_of(channel, method, message), range(8)))

        expected = {"ServerLive": grpc.StatusCode.OK, "TraceSetting": grpc.StatusCode.UNIMPLEMENTED}
        assert ends == {expected.get(method, grpc.StatusCode.UNAUTHENTICATED)}
        assert peak_mb(child.pid) - before < 100


def end_of(channel: object, method: str, message: bytes) -> object:
    try:
        channel.unary_unary(f"{SERVICE}/{method}")(message, timeout=20)  # type: ignore[attr-defined]
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def peak_mb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10
