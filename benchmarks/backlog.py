"""What a deep backlog costs Redis: CPU per request of submit, take and complete at 1,000 and at 1,000,000 waiting.

    python benchmarks/backlog.py [--waiting 1000000] [--measured 51200]

Starts two Redis servers of its own and measures them by turns, so that what else the machine does
hits both alike. The figures are Redis's own CPU time (INFO cpu, user and system): the scripts, the
commands in them, and what Redis does to read and answer the call.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common.broker import Broker
from common.connect import connect
from common.embedded import EmbeddedRedis
from common.scripts import Entry, Finish, Submission

BATCH = 64
SHALLOW = 1_000
PAYLOAD = b"x" * 64
REPLY = b"y" * 64
LONG_MS = 3_600_000
#: Batches between two readings of the clock: few, so that the backlog hardly changes in between.
BURST = 8


class Bench:
    """One pool whose backlog stays as deep as it is while each operation is measured."""

    def __init__(self, client: Any, depth: int) -> None:
        self._client = client
        self._used: defaultdict[str, float] = defaultdict(float)
        self._measured = 0
        self._broker = Broker(client, "backlog")
        self._broker.create_groups()
        self._broker.set_limits(backlog=10**9, tenant=10**9)
        self._broker.renew(LONG_MS, [("worker", b"")])
        self._inbox = self._broker.keys.inbox("bench")
        self._added = 0
        while self._added < depth:
            self._submit(min(4 * BATCH, depth - self._added))

    def measure(self) -> None:
        """Another burst of each operation. As many are taken and finished as are added."""
        with self._cpu("submit"):
            for _ in range(BURST):
                self._submit(BATCH)
        with self._cpu("take"):
            taken = [self._take() for _ in range(BURST)]
        with self._cpu("complete"):
            for entries in taken:
                self._complete(entries)
        self._measured += BURST * BATCH
        self._client.delete(self._inbox)

    def micros(self) -> dict[str, float]:
        """Redis's CPU time per request, for each operation."""
        return {name: seconds * 1e6 / self._measured for name, seconds in self._used.items()}

    def mebibytes(self) -> float:
        return float(self._client.info("memory")["used_memory"]) / 2**20

    def _submit(self, count: int) -> None:
        ids = range(self._added, self._added + count)
        self._added += count
        requests = [Submission(f"id{number}", 1, "tenant", "d", PAYLOAD + b"%d" % number) for number in ids]
        self._broker.submit(requests, self._inbox, LONG_MS)

    def _take(self) -> list[Entry]:
        return self._broker.take("worker", (0, BATCH, 0)).entries

    def _complete(self, entries: list[Entry]) -> None:
        finishes = [Finish(entry, id_of(entry), REPLY, 60_000) for entry in entries]
        if self._broker.complete(finishes) != BATCH:
            raise SystemExit(f"fewer than {BATCH} entries were finished. This is a bug.")

    @contextmanager
    def _cpu(self, operation: str) -> Iterator[None]:
        before = self._cpu_s()
        yield
        self._used[operation] += self._cpu_s() - before

    def _cpu_s(self) -> float:
        cpu = self._client.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


def id_of(entry: Entry) -> str:
    """The payload ends in the request's number."""
    payload = entry.payload or b""
    return f"id{int(payload[len(PAYLOAD) :])}"


def table(shallow: dict[str, float], deep: dict[str, float], depth: int) -> Iterator[str]:
    yield f"{'Redis CPU per request':24}{SHALLOW:>12,}{depth:>12,} waiting"
    for name in shallow:
        yield f"{name:24}{shallow[name]:>9.2f} µs{deep[name]:>9.2f} µs{deep[name] / shallow[name]:>9.2f} x"
    whole = sum(shallow.values()), sum(deep.values())
    yield f"{'all three':24}{whole[0]:>9.2f} µs{whole[1]:>9.2f} µs{whole[1] / whole[0]:>9.2f} x"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--waiting", type=int, default=1_000_000, help="the deep backlog (default: 1,000,000)")
    parser.add_argument("--measured", type=int, default=51_200, help="requests measured at each (default: 51,200)")
    options = parser.parse_args()
    started = time.monotonic()
    with EmbeddedRedis() as one, EmbeddedRedis() as two:
        client = connect(one.url)
        shallow, deep = Bench(client, SHALLOW), Bench(connect(two.url), options.waiting)
        for _ in range(options.measured // (BURST * BATCH)):
            shallow.measure()
            deep.measure()
        print("\n".join(table(shallow.micros(), deep.micros(), options.waiting)))
        version, seconds = client.info("server")["redis_version"], time.monotonic() - started
        print(f"Redis {version}, batches of {BATCH}, {deep.mebibytes():.0f} MiB, {seconds:.0f} s in all")


if __name__ == "__main__":
    main()
