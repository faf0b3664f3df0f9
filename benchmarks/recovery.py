"""(r) How long requests wait whose worker, or whose whole host, is killed; and what a reclaim costs Redis.

python -m benchmarks.recovery [--kills N] [--lease SECONDS] [--pending N]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from benchmarks.harness import percentile, table, workers
from common.broker import Broker
from common.connect import connect
from common.embedded import EmbeddedRedis
from common.keys import GROUP, PoolKeys
from gateway import Client, Handle
from gateway.admin.pools import Admin
from inference_worker.supervision.settings import FleetSettings

POOL = "recovery"
BATCH = 16
#: What a worker takes over at once, and what it takes over of an entry that a worker died with.
MOST = (64, 1)
CALLS = 1000
LONG_MS = 3_600_000

MODEL = '''
import os
import time
from pathlib import Path

import numpy as np
from inference_worker import model


@model(inputs={"gate": "BYTES[]"}, outputs={"pid": "INT64[]"}, sample={"gate": os.devnull}, rows=16)
def gate(gate):
    """Says which process is at the gate, and waits until that is open."""
    if gate[0] != os.devnull:
        Path(f"{gate[0]}.{os.getpid()}").touch()
    while not Path(gate[0]).exists():
        time.sleep(0.001)
    return np.full(len(gate), os.getpid())
'''

#: ARGV: entries to add, the consumer that is to hold them.
PILE = """
for i = 1, ARGV[1] do
  redis.call('XADD', KEYS[1], '*', 'd', 'x')
end
redis.call('XREADGROUP', 'GROUP', ARGV[3], ARGV[2], 'COUNT', ARGV[1], 'STREAMS', KEYS[1], '>')
"""


def pile_up(client: Any, keys: PoolKeys, count: int, consumer: str = "dead") -> None:
    """`count` entries of normal priority that `consumer`, which has no lease, has taken and not finished."""
    for start in range(0, count, 10_000):
        client.execute_command("EVAL", PILE, 1, keys.streams[1], min(10_000, count - start), consumer, GROUP)


# Kills


def kill_worker(worker: int, supervisor: int) -> None:
    os.kill(worker, signal.SIGKILL)


def kill_host(worker: int, supervisor: int) -> None:
    os.kill(supervisor, signal.SIGKILL)


def recovery_s(url: str, lease_s: float, kill: Callable[[int, int], None]) -> float:
    """Seconds from the kill of the process that holds a batch until the last of it is answered."""
    options = ("--device", "cpu", "--procs", "1", "--lease", str(lease_s))
    with tempfile.TemporaryDirectory(prefix="iw-recovery-") as name, ExitStack() as hosts:
        folder = Path(name)
        models = folder / "models.py"
        models.write_text(MODEL)
        supervisors = [hosts.enter_context(workers(url, POOL, str(models), options=options)) for _ in range(2)]
        admin = Admin(connect(url))
        _wait(lambda: _ready(admin) == len(supervisors))
        with Client(url, pool=POOL, timeout_s=10 * lease_s + 60) as client:
            handles, holder = _held_batch(client, folder / "gate")
            [supervisor] = [pid for pid in supervisors if holder in _children(pid)]
            started = time.perf_counter()
            kill(holder, supervisor)
            _wait(lambda: not _lives(holder))
            (folder / "gate").touch()
            for handle in handles:
                assert int(handle.result()["pid"]) != holder, "the killed process answered. This is a bug."
            return time.perf_counter() - started


def _ready(admin: Admin) -> int:
    [pool] = admin.snapshot([POOL]).pools
    return sum(worker.live and worker.about.get("state") == "ready" for worker in pool.workers)


def _held_batch(client: Client, gate: Path) -> tuple[list[Handle], int]:
    """(requests that one worker holds, its process id)"""
    handles = [client.submit("gate", str(gate)) for _ in range(BATCH)]
    _wait(lambda: any(gate.parent.glob("gate.*")))
    return handles, int(next(gate.parent.glob("gate.*")).suffix[1:])


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _lives(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"nothing happened within {within_s:g} s. This is a bug.")
        time.sleep(0.002)


# Reclaim


def reclaim_ms(url: str, pending: int, most: int) -> tuple[list[float], float]:
    """(ms of each of CALLS reclaims of up to `most` entries, of `pending`; the longest that a PING waited, in ms)"""
    client = connect(url)
    client.flushall()
    broker = Broker(client, POOL)
    broker.create_groups()
    broker.renew(LONG_MS, [("rescuer", b"")])
    pile_up(client, broker.keys, pending)
    with pings(url) as longest:
        times = [_timed(lambda: broker.reclaim("rescuer", most)) for _ in range(min(CALLS, pending // most))]
    return times, longest[0]


@contextmanager
def pings(url: str) -> Iterator[list[float]]:
    """The longest that another connection waited meanwhile, in ms; there when the block has ended."""
    client, over, longest = connect(url), Event(), [0.0]

    def ping() -> None:
        while not over.is_set():
            longest[0] = max(longest[0], _timed(client.ping))

    thread = Thread(target=ping)
    thread.start()
    try:
        yield longest
    finally:
        over.set()
        thread.join()


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of a worker, and as many of a host (default: 20)")
    parser.add_argument("--lease", type=float, default=FleetSettings().lease_s, help="seconds (default: the command's)")
    parser.add_argument("--pending", type=int, default=1_000_000, help="entries of a dead worker (default: 1,000,000)")
    options = parser.parse_args()
    with EmbeddedRedis() as redis:
        print_kills(redis.url, options.kills, options.lease)
        print_reclaims(redis.url, options.pending)


def print_kills(url: str, kills: int, lease_s: float) -> None:
    rows = []
    for what, kill in (("the worker", kill_worker), ("the whole host", kill_host)):
        seconds = [recovery_s(url, lease_s, kill) for _ in range(kills)]
        p50, p95 = statistics.median(seconds), percentile(seconds, 0.95)
        rows.append([what, f"{p50:.2f}", f"{p95:.2f}", f"{max(seconds):.2f}", f"{lease_s:g}"])
    heads = ["killed", "answered after s, p50", "p95", "max", "lease s"]
    table(f"(r) {kills} kills each of the process that holds a batch of {BATCH}, another host idle", heads, rows)


def print_reclaims(url: str, pending: int) -> None:
    rows = []
    for depth in (1000, pending):
        for most in MOST:
            times, stall = reclaim_ms(url, depth, most)
            row = [f"{depth:,}", str(most), f"{statistics.median(times):.2f}", f"{percentile(times, 0.99):.2f}"]
            rows.append([*row, f"{stall:.2f}"])
    heads = ["pending of a dead worker", "taken over at once", "call ms, p50", "p99", "longest PING beside it ms"]
    table("(r) what one reclaim takes, whatever is pending", heads, rows)


if __name__ == "__main__":
    main()
