"""Idle keep-alive connections to the HTTP door: its memory for each, and what a request takes among them.

python -m benchmarks.connections [--connections N]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import ExitStack

from benchmarks.harness import ROOT, percentile, resident_mb, table, workers
from benchmarks.http import Kind, echoes, free_port, load, served
from common.embedded import EmbeddedRedis
from common.keys import DEFAULT_POOL
from gateway.door.openfiles import raise_open_files

#: Opened at a time; the listener's queue is longer.
AT_ONCE = 500
ASKED = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def measure(port: int, pid: int, count: int, kind: Kind) -> list[str]:
    """Each connection has asked once, and stays. A row of the table."""
    before_mb = resident_mb(pid)
    opened: list[asyncio.StreamWriter] = []
    for start in range(0, count, AT_ONCE):
        opened += await asyncio.gather(*(_asked(port) for _ in range(start, min(count, start + AT_ONCE))))
    each_kib = (resident_mb(pid) - before_mb) * 1e6 / 1024 / count if count else 0.0
    figures = await load(port, pid, kind, 640, 16)
    alone = sorted([await _alone(port, pid, kind) for _ in range(20)])
    for writer in opened:
        writer.close()
    return [
        f"{count:,}", f"{each_kib:.1f}", f"{figures.per_second:,.0f}", f"{figures.p50_ms:.1f}",
        f"{percentile(alone, 0.5):.1f}",
    ]  # fmt: skip


async def _asked(port: int) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(ASKED)
    await reader.readuntil(b"\r\n\r\n")
    return writer


async def _alone(port: int, pid: int, kind: Kind) -> float:
    return (await load(port, pid, kind, 1, 1)).p50_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    count = parser.parse_args().connections
    if raise_open_files() < count + 100:
        raise SystemExit(f"{count} connections need as many open files here: raise `ulimit -Hn`, or say --connections")
    port = free_port()
    gateway = [sys.executable, "-m", "inference_worker.cli", "gateway", "--http", f":{port}", "--notice", "0"]
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis())
        echo = str(ROOT / "examples" / "echo.py")
        stack.enter_context(workers(server.url, DEFAULT_POOL, echo, options=("--device", "cpu")))
        pid = stack.enter_context(served([*gateway, "--broker", server.url], port))
        asyncio.run(load(port, pid, echoes()[0], 640, 16))
        rows = [asyncio.run(measure(port, pid, some, echoes()[0])) for some in (0, count)]
    heads = ["idle connections", "KiB each", "16 others: requests/s", "their p50 ms", "one alone: p50 ms"]
    table("v2 binary echo among idle keep-alive connections", heads, rows)


if __name__ == "__main__":
    main()
