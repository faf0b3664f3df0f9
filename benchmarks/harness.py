"""What the benchmarks share: processes and their CPU time, medians, and tables."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.broker import Broker
from common.connect import connect

ROOT = Path(__file__).resolve().parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of all that it started and that still runs."""
    return sum(_own_cpu_seconds(one) for one in (pid, *_descendants(pid)))


def resident_mb(pid: int) -> float:
    """Memory of the processes that `pid` started and that still run, in MB; pages that they share count for each."""
    return sum(_own_resident_mb(one) for one in _descendants(pid))


def redis_cpu_seconds(url: str) -> float:
    """User and system time of the server, by its own count (finer than the kernel's ticks)."""
    info = connect(url).info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


@contextmanager
def workers(url: str, pool: str, *paths: str, options: Sequence[str] = ()) -> Iterator[int]:
    """The real `inference-worker worker` command, ready; its supervisor's process id."""
    command = [
        sys.executable, "-m", "inference_worker.cli", "worker", "--broker", url, "--pool", pool, *options, *paths,
    ]  # fmt: skip
    broker = Broker(connect(url), pool)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while not broker.models():
            if process.poll() is not None:
                raise RuntimeError(f"the worker ended with {process.returncode} before it was ready")
            time.sleep(0.02)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@dataclass(frozen=True)
class Rate:
    """Results per second, and CPU microseconds per result of client, worker and Redis."""

    per_second: float
    client_us: float
    worker_us: float
    redis_us: float


@contextmanager
def measured(url: str, worker_pid: int, results: int) -> Iterator[list[Rate]]:
    """Measure the enclosed block, which brings `results` results; the list then holds the Rate."""
    found: list[Rate] = []
    before = time.process_time(), cpu_seconds(worker_pid), redis_cpu_seconds(url)
    started = time.perf_counter()
    yield found
    elapsed = time.perf_counter() - started
    after = time.process_time(), cpu_seconds(worker_pid), redis_cpu_seconds(url)
    client, worker, server = ((b - a) / results * 1e6 for a, b in zip(before, after, strict=True))
    found.append(Rate(results / elapsed, client, worker, server))


def median_rate(rates: Sequence[Rate]) -> Rate:
    return Rate(*(statistics.median(getattr(rate, name) for rate in rates) for name in Rate.__dataclass_fields__))


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    print(f"\n{title}\n")
    for row in (heads, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    sys.stdout.flush()


def _own_cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _own_resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except FileNotFoundError:
        return 0.0


def _descendants(pid: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return
    for child in map(int, children):
        yield child
        yield from _descendants(child)
