"""The HTTP door's dialects beside a bare Starlette handler on the same server: rates, latencies, CPU.

python -m benchmarks.http [--requests N] [--connections N] [--rounds N] [--minilm N]

Echo first, then MiniLM; `--requests 0` and `--minilm 0` leave one out. The bare handler reads the same body, and
answers as many bytes. The gateway's CPU is that of its processes, by the kernel's clock; Redis and the worker are not
in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

from benchmarks.corpus import sentences
from benchmarks.harness import ROOT, cpu_seconds, percentile, table, workers
from common.embedded import EmbeddedRedis
from common.keys import DEFAULT_POOL

BARE = """
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
import sys, uvicorn
async def echo(request):
    await request.body()
    return Response(bytes(request.path_params["size"]), media_type="application/octet-stream")
app = Starlette(routes=[Route("/echo/{size:int}", echo, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="error", loop="uvloop", http="httptools")
"""
VECTOR = np.random.default_rng(7).standard_normal((1, 384), dtype=np.float32)
MINILM = ROOT / "examples" / "models" / "minilm"
START_S = 20.0


class Ask(NamedTuple):
    """One request's own headers and its body."""

    headers: Mapping[str, str]
    body: bytes


class Kind(NamedTuple):
    """One way to ask; its requests take turns."""

    name: str
    path: str
    asks: Sequence[Ask]


class Figures(NamedTuple):
    """Requests per second, milliseconds, and the server's CPU microseconds for each request."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def echoes() -> list[Kind]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 384]}
    values = VECTOR.ravel().tolist()
    infer = "/v2/models/echo/infer"
    return [
        Kind("v2, binary", infer, [binary(tensor, VECTOR.tobytes())]),
        Kind("v2, JSON", infer, [Ask({}, json.dumps({"inputs": [{**tensor, "data": values}]}).encode())]),
        Kind("plain JSON", "/models/echo", [Ask({}, json.dumps({"x": [values]}).encode())]),
    ]


def embeddings(texts: Sequence[str]) -> list[Kind]:
    """A sentence each."""
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1]}
    infer = "/v2/models/minilm/infer"
    encoded = [text.encode() for text in texts]
    return [
        Kind("v2, binary", infer, [binary(tensor, len(one).to_bytes(4, "little") + one) for one in encoded]),
        Kind("v2, JSON", infer, [_json({"inputs": [{**tensor, "data": [text]}]}) for text in texts]),
        Kind("OpenAI", "/v1/embeddings", [
            _json({"model": "minilm", "input": text, "encoding_format": "base64"}) for text in texts
        ]),
    ]  # fmt: skip


def binary(tensor: Mapping[str, object], data: bytes) -> Ask:
    head = json.dumps({
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    return Ask({"Inference-Header-Content-Length": str(len(head)), "Cache-Control": "no-cache"}, head + data)


def _json(message: object) -> Ask:
    return Ask({"Cache-Control": "no-cache"}, json.dumps(message).encode())


async def load(port: int, pid: int, kind: Kind, requests: int, connections: int) -> Figures:
    seconds: list[float] = []
    await asyncio.gather(*(_connection(port, kind, 2, []) for _ in range(connections)))
    cpu, started = cpu_seconds(pid), time.perf_counter()
    await asyncio.gather(*(_connection(port, kind, requests // connections, seconds) for _ in range(connections)))
    elapsed = time.perf_counter() - started
    return Figures(
        len(seconds) / elapsed, percentile(seconds, 0.5) * 1e3, percentile(seconds, 0.99) * 1e3,
        (cpu_seconds(pid) - cpu) / len(seconds) * 1e6,
    )  # fmt: skip


async def _connection(port: int, kind: Kind, times: int, seconds: list[float]) -> int:
    """Ask so often, one after the other; the length of the last answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    length = 0
    for told in islice(cycle([_request(kind.path, one) for one in kind.asks]), times):
        started = time.perf_counter()
        writer.write(told)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(head.decode("latin-1"))
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - started)
    writer.close()
    return length


def _request(path: str, ask: Ask) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in ask.headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(ask.body)}\r\n\r\n"
    return head.encode() + ask.body


@contextmanager
def served(command: list[str], port: int) -> Iterator[int]:
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nothing listens on port {port}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6400)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minilm", type=int, default=640, help="its requests in a round")
    options = parser.parse_args()
    if options.requests:
        _compare("echo of 1.5 KB over HTTP", ROOT / "examples" / "echo.py", echoes(), options.requests, options)
    if options.minilm:
        kinds = embeddings(sentences()[: options.minilm])
        _compare("MiniLM over HTTP, a sentence each", MINILM, kinds, options.minilm, options)


def _compare(title: str, model: object, kinds: list[Kind], requests: int, options: argparse.Namespace) -> None:
    bare_port, port = free_port(), free_port()
    found: dict[str, list[Figures]] = {}
    floors: dict[str, list[Figures]] = {}
    gateway = [sys.executable, "-m", "inference_worker.cli", "gateway", "--http", f":{port}", "--notice", "0"]
    with (
        EmbeddedRedis() as server,
        workers(server.url, DEFAULT_POOL, str(model), options=("--device", "cpu")),
        served([sys.executable, "-c", BARE, str(bare_port)], bare_port) as bare_pid,
        served([*gateway, "--broker", server.url], port) as pid,
    ):
        for _ in range(options.rounds):
            for kind in kinds:
                size = asyncio.run(_connection(port, kind, 1, []))
                bare = Kind(kind.name, f"/echo/{size}", kind.asks)
                floor = asyncio.run(load(bare_port, bare_pid, bare, requests, options.connections))
                floors.setdefault(kind.name, []).append(floor)
                figures = asyncio.run(load(port, pid, kind, requests, options.connections))
                found.setdefault(kind.name, []).append(figures)
    _print(title, found, floors, options.connections)


def _print(title: str, found: dict[str, list[Figures]], floors: dict[str, list[Figures]], connections: int) -> None:
    rows = []
    for name, rounds in found.items():
        one, bare = _median(rounds), _median(floors[name])
        rows.append([
            name, f"{one.per_second:,.0f}", f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.cpu_us:.0f}",
            f"{bare.cpu_us:.0f}", f"{one.cpu_us / bare.cpu_us:.1f}",
        ])  # fmt: skip
    heads = [title, "requests/s", "p50 ms", "p99 ms", "gateway's CPU µs", "bare handler's", "times as much"]
    table(f"{connections} connections, medians of interleaved rounds", heads, rows)


def _median(rounds: list[Figures]) -> Figures:
    return Figures(*map(statistics.median, zip(*rounds, strict=True)))


if __name__ == "__main__":
    main()
