"""What tracing costs: CPU time for each echo result, off, on, and with each request recorded, in interleaved rounds.

A collector that takes all spans runs in a process of its own, which is not counted. Off is the ordinary command; "on"
is what `--tracing` does by itself: all traces, up to 25 new ones a second; a ratio is decided where a trace begins.

python -m benchmarks.tracing [--requests N] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks.echo import ECHO, IN_FLIGHT, inputs
from benchmarks.harness import Rate, measured, median_rate, table, workers
from common.embedded import EmbeddedRedis
from common.tensor import Array
from common.tracing import Tracing, open_tracing
from gateway import Client

#: Takes whatever is sent to it, and says on which port.
_COLLECTOR = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *args): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
WAYS: dict[str, Mapping[str, str] | None] = {
    "off": None,
    "on": {},
    "1 % recorded": {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
    "all recorded": {"OTEL_TRACES_SAMPLER": "parentbased_always_on"},
}


@contextmanager
def collector() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-c", _COLLECTOR], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def rate(url: str, pool: str, arrays: list[Array], endpoint: str, way: Mapping[str, str] | None) -> Rate:
    variables = {} if way is None else {**way, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    with environment(variables):
        tracing = None if way is None else open_tracing(True, os.environ, "benchmark", "1")
        with workers(url, pool, ECHO) as pid:
            found = _measured(url, pool, pid, arrays, tracing)
        if tracing is not None:
            tracing.close()
    return found


def _measured(url: str, pool: str, pid: int, arrays: list[Array], tracing: Tracing | None) -> Rate:
    with Client(url, pool=pool, tracing=tracing or False) as client:
        for _ in client.map("echo", arrays[:2000], window=IN_FLIGHT):
            pass
        with measured(url, pid, len(arrays)) as found:
            for _ in client.map("echo", arrays, window=IN_FLIGHT):
                pass
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    arrays = inputs(options.requests)
    found: dict[str, list[Rate]] = {name: [] for name in WAYS}
    with EmbeddedRedis() as server, collector() as endpoint:
        for number in range(options.rounds):
            for index, (name, way) in enumerate(WAYS.items()):
                found[name].append(rate(server.url, f"p{number}-{index}", arrays, endpoint, way))
    _print(found)


def _print(found: Mapping[str, list[Rate]]) -> None:
    rows = []
    for name, rates in found.items():
        pairs = list(zip(rates, found["off"], strict=True))
        cpu = statistics.median(_ours(one) / _ours(off) for one, off in pairs)
        speed = statistics.median(one.per_second / off.per_second for one, off in pairs)
        one = median_rate(rates)
        rows.append([name, f"{one.client_us:.0f}", f"{one.worker_us:.0f}", f"{cpu - 1:+.1%}", f"{speed - 1:+.1%}"])
    heads = ["tracing", "client µs", "worker µs", "CPU time of both", "results/s"]
    table(f"echo, 1.5 KB, {IN_FLIGHT} in flight: medians of {len(found['off'])} interleaved rounds", heads, rows)


def _ours(rate: Rate) -> float:
    return rate.client_us + rate.worker_us


if __name__ == "__main__":
    main()
