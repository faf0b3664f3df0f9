"""What `--metrics` costs: the worker's CPU time for an echo request with and without it, and that of a scrape.

python -m benchmarks.metrics [--requests N] [--rounds N]

Workers with and without it take turns, each a fresh process: what else the machine does meets both, and what two
processes differ in by chance evens out.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from urllib.request import urlopen

from benchmarks.echo import ECHO, IN_FLIGHT, inputs
from benchmarks.harness import cpu_seconds, measured, table, workers
from common.embedded import EmbeddedRedis
from common.tensor import Array
from gateway import Client

ADDRESS = "127.0.0.1:9499"
SCRAPES = 100


def ask(client: Client, arrays: list[Array]) -> None:
    for _ in client.map("echo", arrays, window=IN_FLIGHT):
        pass


def worker_us(url: str, pool: str, flags: Sequence[str], arrays: list[Array]) -> float:
    """CPU microseconds that a fresh worker, warm by some requests, takes for each of these."""
    with workers(url, pool, ECHO, options=flags) as pid, Client(url, pool=pool) as client:
        ask(client, arrays[: len(arrays) // 5])
        with measured(url, pid, len(arrays)) as found:
            ask(client, arrays)
    return found[0].worker_us


def scrape_ms(pid: int) -> float:
    """CPU of one scrape, in milliseconds."""
    before = cpu_seconds(pid)
    for _ in range(SCRAPES):
        urlopen(f"http://{ADDRESS}/metrics").read()
    return (cpu_seconds(pid) - before) / SCRAPES * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="for each worker and round")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    arrays = inputs(options.requests)
    flags: dict[str, tuple[str, ...]] = {"off": (), "on": ("--metrics", ADDRESS)}
    used: dict[str, list[float]] = {name: [] for name in flags}
    with EmbeddedRedis() as server:
        for number in range(options.rounds):
            for name in sorted(flags, reverse=number % 2 == 1):
                used[name].append(worker_us(server.url, f"{name}{number}", flags[name], arrays))
        with (
            workers(server.url, "scraped", ECHO, options=flags["on"]) as pid,
            Client(server.url, pool="scraped") as one,
        ):
            ask(one, arrays[:1000])
            cost_ms = scrape_ms(pid)
    _print(used, cost_ms)


def _print(used: dict[str, list[float]], cost_ms: float) -> None:
    pairs = list(zip(used["on"], used["off"], strict=True))
    share = sum(used["on"]) / sum(used["off"]) - 1
    spread = statistics.median(on / off - 1 for on, off in pairs)
    rows = [[name, f"{statistics.mean(used[name]):.2f}"] for name in ("off", "on")]
    table(
        f"metrics cost {share:+.1%} of a worker's CPU over {len(pairs)} interleaved rounds (median {spread:+.1%}); "
        f"a scrape takes {cost_ms:.1f} ms of it",
        ["echo, 1.5 KB, 256 in flight; metrics", "worker µs a request"],
        rows,
    )


if __name__ == "__main__":
    main()
