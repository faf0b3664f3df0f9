"""Echo over the HTTP door's dialects beside a bare Starlette handler on the same server: rates, latencies, CPU.

python -m benchmarks.http [--requests N] [--connections N] [--rounds N]

The gateway's CPU is that of its processes, by the kernel's clock; Redis and the worker are not in it.
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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from benchmarks.harness import ROOT, cpu_seconds, percentile, table, workers
from common.embedded import EmbeddedRedis
from common.keys import DEFAULT_POOL

BARE = """
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
import sys, uvicorn
async def echo(request):
    return Response(await request.body(), media_type="application/octet-stream")
app = Starlette(routes=[Route("/echo", echo, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="error", loop="uvloop", http="httptools")
"""
VECTOR = np.random.default_rng(7).standard_normal((1, 384), dtype=np.float32)
START_S = 20.0


class Kind(NamedTuple):
    """One way to ask."""

    name: str
    path: str
    headers: dict[str, str]
    body: bytes


class Figures(NamedTuple):
    """Requests per second, milliseconds, and the server's CPU microseconds for each request."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def kinds() -> list[Kind]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 384]}
    values = VECTOR.ravel().tolist()
    head = json.dumps({
        "inputs": [{**tensor, "parameters": {"binary_data_size": VECTOR.nbytes}}],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    infer = "/v2/models/echo/infer"
    return [
        Kind("v2, binary", infer, {"Inference-Header-Content-Length": str(len(head))}, head + VECTOR.tobytes()),
        Kind("v2, JSON", infer, {}, json.dumps({"inputs": [{**tensor, "data": values}]}).encode()),
        Kind("plain JSON", "/models/echo", {}, json.dumps({"x": [values]}).encode()),
    ]


async def load(port: int, pid: int, kind: Kind, requests: int, connections: int) -> Figures:
    seconds: list[float] = []
    await asyncio.gather(*(_connection(port, kind, 10, []) for _ in range(connections)))
    cpu, started = cpu_seconds(pid), time.perf_counter()
    await asyncio.gather(*(_connection(port, kind, requests // connections, seconds) for _ in range(connections)))
    elapsed = time.perf_counter() - started
    return Figures(
        len(seconds) / elapsed, percentile(seconds, 0.5) * 1e3, percentile(seconds, 0.99) * 1e3,
        (cpu_seconds(pid) - cpu) / len(seconds) * 1e6,
    )  # fmt: skip


async def _connection(port: int, kind: Kind, times: int, seconds: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = "".join(f"{name}: {value}\r\n" for name, value in kind.headers.items())
    head = f"POST {kind.path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(kind.body)}\r\n\r\n"
    for _ in range(times):
        started = time.perf_counter()
        writer.write(head.encode() + kind.body)
        told = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not told.startswith(b"http/1.1 200"):
            raise RuntimeError(told.decode("latin-1"))
        length = told.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        seconds.append(time.perf_counter() - started)
    writer.close()


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6400)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    bare_port, port = _free_port(), _free_port()
    found: dict[str, list[Figures]] = {}
    gateway = [sys.executable, "-m", "inference_worker.cli", "gateway", "--http", f":{port}", "--notice", "0"]
    with (
        EmbeddedRedis() as server,
        workers(server.url, DEFAULT_POOL, str(ROOT / "examples" / "echo.py"), options=("--device", "cpu")),
        served([sys.executable, "-c", BARE, str(bare_port)], bare_port) as bare_pid,
        served([*gateway, "--broker", server.url], port) as pid,
    ):
        bare = Kind("bare Starlette echo", "/echo", {}, VECTOR.tobytes())
        for _ in range(options.rounds):
            for kind, at, whose in ((bare, bare_port, bare_pid), *((kind, port, pid) for kind in kinds())):
                figures = asyncio.run(load(at, whose, kind, options.requests, options.connections))
                found.setdefault(kind.name, []).append(figures)
    _print(found, options.connections)


def _print(found: dict[str, list[Figures]], connections: int) -> None:
    medians = {name: Figures(*map(statistics.median, zip(*rounds, strict=True))) for name, rounds in found.items()}
    bare = medians["bare Starlette echo"].cpu_us
    rows = [
        [name, f"{one.per_second:,.0f}", f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.cpu_us:.0f}",
         f"{one.cpu_us / bare:.1f}"]
        for name, one in medians.items()
    ]  # fmt: skip
    heads = ["echo of 1.5 KB over HTTP", "requests/s", "p50 ms", "p99 ms", "server's CPU µs", "of the bare one"]
    table(f"{connections} connections, medians of interleaved rounds", heads, rows)


if __name__ == "__main__":
    main()
