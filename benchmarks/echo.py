"""(a) Echo results per second with 256 in flight, and (b) round trips at depth one, each beside its floor.

python -m benchmarks.echo [--requests N] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from benchmarks.floor import floor_worker, lean, plain, run_batches, run_pingpong
from benchmarks.harness import ROOT, Rate, measured, median_rate, percentile, table, workers
from common.embedded import EmbeddedRedis
from common.tensor import Array
from gateway import Client

IN_FLIGHT = 256
ECHO = str(ROOT / "examples" / "echo.py")


def inputs(count: int) -> list[Array]:
    """Different float32 vectors of 1.5 KB."""
    generator = np.random.default_rng(7)
    return list(generator.standard_normal((count, 384), dtype=np.float32))


def floor_rate(url: str, arrays: list[Array]) -> Rate:
    payloads = [array.tobytes() for array in arrays]
    with floor_worker("batches", url) as pid:
        run_batches(url, payloads[:2000], IN_FLIGHT)
        with measured(url, pid, len(payloads)) as found:
            run_batches(url, payloads, IN_FLIGHT)
    return found[0]


def our_rate(url: str, pool: str, arrays: list[Array]) -> Rate:
    with workers(url, pool, ECHO) as pid, Client(url, pool=pool) as client:
        _check(client, arrays[:2000])
        with measured(url, pid, len(arrays)) as found:
            _check(client, arrays)
    return found[0]


def _check(client: Client, arrays: list[Array]) -> None:
    for sent, result in zip(arrays, client.map("echo", arrays, window=IN_FLIGHT), strict=True):
        if not np.array_equal(result["x"], sent):
            raise RuntimeError("echo answered with another value")


def floor_trips(url: str, array: Array, times: int, kind: str = "pingpong") -> list[float]:
    connect = lean if kind == "lean" else plain
    with floor_worker(kind, url):
        run_pingpong(url, array.tobytes(), times // 10, connect)
        return run_pingpong(url, array.tobytes(), times, connect)


def our_trips(url: str, pool: str, array: Array, times: int) -> list[float]:
    seconds = []
    with workers(url, pool, ECHO), Client(url, pool=pool) as client:
        for number in range(times + times // 10):
            started = time.perf_counter()
            result = client.infer("echo", array)
            elapsed = time.perf_counter() - started
            if not np.array_equal(result["x"], array):
                raise RuntimeError("echo answered with another value")
            if number >= times // 10:
                seconds.append(elapsed)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--trips", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    arrays = inputs(options.requests)
    floors, ours, floor_seconds, lean_seconds, our_seconds = [], [], [], [], []
    with EmbeddedRedis() as server:
        for number in range(options.rounds):
            floors.append(floor_rate(server.url, arrays))
            ours.append(our_rate(server.url, f"echo{number}", arrays))
            floor_seconds.append(floor_trips(server.url, arrays[0], options.trips))
            lean_seconds.append(floor_trips(server.url, arrays[0], options.trips, "lean"))
            our_seconds.append(our_trips(server.url, f"trip{number}", arrays[0], options.trips))
    _print_rates(floors, ours)
    _print_trips(floor_seconds, lean_seconds, our_seconds)


def _print_rates(floors: list[Rate], ours: list[Rate]) -> None:
    ratio = statistics.median(one.per_second / floor.per_second for one, floor in zip(ours, floors, strict=True))
    rows = [
        [name, f"{rate.per_second:,.0f}", f"{rate.client_us:.0f}", f"{rate.worker_us:.0f}", f"{rate.redis_us:.0f}"]
        for name, rate in (("floor", median_rate(floors)), ("inference-worker", median_rate(ours)))
    ]
    heads = ["echo, 1.5 KB, 256 in flight", "results/s", "client µs", "worker µs", "Redis µs"]
    table(f"(a) medians of {len(ours)} interleaved rounds; {ratio:.2f} of the floor", heads, rows)


def _print_trips(floors: list[list[float]], leans: list[list[float]], ours: list[list[float]]) -> None:
    def row(name: str, rounds: list[list[float]]) -> list[str]:
        return [name, *(f"{statistics.median(percentile(one, p) for one in rounds) * 1e3:.3f}" for p in (0.5, 0.99))]

    ratio = statistics.median(
        percentile(one, 0.5) / percentile(floor, 0.5) for one, floor in zip(ours, floors, strict=True)
    )
    heads = ["echo, 1.5 KB, depth one", "p50 ms", "p99 ms"]
    table(
        f"(b) medians of {len(ours)} interleaved rounds; p50 is {ratio:.2f} of the floor's",
        heads,
        [
            row("XADD/BLPOP ping-pong, redis-py", floors),
            row("the same on our connection", leans),
            row("inference-worker", ours),
        ],
    )


if __name__ == "__main__":
    main()
