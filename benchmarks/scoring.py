"""Offline scoring against the best hand-written loop; rows and bytes a second; memory; what online traffic notices.

python -m benchmarks.scoring [minilm echo online hosts] [--sentences N] [--rounds N]
python -m benchmarks.scoring --big GB       peak memory over a file of that size, made on the spot
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from benchmarks.corpus import sentences
from benchmarks.harness import ROOT, cpu_seconds, percentile, table, workers
from benchmarks.minilm import MINILM, Direct
from common.embedded import EmbeddedRedis
from common.keys import DEFAULT_POOL
from gateway import Client
from inference_worker.scoring.engine import Scorer
from inference_worker.scoring.folder import Folder
from inference_worker.scoring.job import Job, prepare
from inference_worker.scoring.leases import OwnLeases
from inference_worker.scoring.run import Options, open_scorer, plan_of
from inference_worker.scoring.sources import find_sources
from inference_worker.scoring.tally import Tally

ECHO = str(ROOT / "examples" / "echo.py")
HAND_BATCHES = (4, 8, 16, 32)
WIDTH = 64


def seconds(options: Options, scorer: Scorer, tally: Tally | None = None) -> float:
    """What a whole job takes, its files written, without the load of the model."""
    with tempfile.TemporaryDirectory(prefix="scoring-") as folder:
        sources = find_sources(options.inputs, None)
        prepared = prepare(plan_of(options, scorer.facts, sources), scorer.facts)
        out = Folder(f"{folder}/out")
        out.begin(prepared.plan)
        started = time.perf_counter()
        Job(prepared, out, scorer, OwnLeases(), tally or Tally(), tick=lambda: None).run()
        return time.perf_counter() - started


def minilm(count: int, rounds: int, folder: Path) -> None:
    """MiniLM here and through Redis, each round beside the hand-written loop at every batch size."""
    texts = sentences(count)
    pa.parquet.write_table(pa.table({"text": texts}), folder / "texts.parquet")
    threads = len(os.sched_getaffinity(0))
    local = Options("minilm", (str(folder / "texts.parquet"),), "", local=str(MINILM), threads=threads)
    direct, here = Direct(threads), open_scorer(local, print)
    costs: dict[str, list[Cost]] = {}
    with EmbeddedRedis() as server, workers(server.url, DEFAULT_POOL, str(MINILM)) as pid:
        queued = Options("minilm", local.inputs, "", broker=server.url)
        there = open_scorer(queued, print)
        ways: dict[str, Callable[[], object]] = {
            f"by hand, sorted, batches of {size}": partial(direct.run, texts, size, True) for size in HAND_BATCHES
        }
        ways["score --local"] = partial(seconds, local, here)
        ways["score, through Redis"] = partial(seconds, queued, there)
        for _ in range(rounds):
            for name, run in ways.items():
                costs.setdefault(name, []).append(cost_of(run, pid))
        there.close()
    here.close()
    _print_ratios(f"MiniLM, {count} sentences, best of {rounds} rounds", count, costs)


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of processors, ours and the workers': these say more on a machine that is shared."""

    wall_s: float
    cpu_s: float


def cost_of(run: Callable[[], object], pid: int) -> Cost:
    before, cpu = time.perf_counter(), time.process_time() + cpu_seconds(pid)
    run()
    return Cost(time.perf_counter() - before, time.process_time() + cpu_seconds(pid) - cpu)


def _print_ratios(title: str, count: int, costs: dict[str, list[Cost]]) -> None:
    """The best rounds, as others only ever slow one down, beside the best by hand; by the clock and by processors."""
    wall, cpu = (
        {name: min(getattr(one, kind) for one in some) for name, some in costs.items()} for kind in ("wall_s", "cpu_s")
    )
    hand = [name for name in costs if name.startswith("by hand")]
    best_wall, best_cpu = (min(times[name] for name in hand) for times in (wall, cpu))
    rows = [
        [name, f"{count / wall[name]:.1f}", f"{best_wall / wall[name]:.2f}", f"{1000 * cpu[name] / count:.2f}",
         f"{best_cpu / cpu[name]:.2f}"]
        for name in costs
    ]  # fmt: skip
    table(title, ["", "sentences/s", "of the best by hand", "CPU ms each", "of the best by hand"], rows)


def echo(rows: int, rounds: int, folder: Path) -> None:
    """The cheapest model there is: what is left is reading, encoding, the queue, writing."""
    values = np.random.default_rng(0).random((rows, WIDTH), np.float32)
    np.save(folder / "x.npy", values)
    found = []
    with EmbeddedRedis() as server, workers(server.url, DEFAULT_POOL, ECHO):
        for name, options in (
            ("score --local", Options("echo", (str(folder / "x.npy"),), "", local=ECHO, threads=1)),
            ("score, through Redis", Options("echo", (str(folder / "x.npy"),), "", broker=server.url)),
        ):
            scorer = open_scorer(options, print)
            best = min(seconds(options, scorer) for _ in range(rounds))
            scorer.close()
            found.append([name, f"{rows / best:,.0f}", f"{values.nbytes / best / 1e6:.1f}"])
    table(f"echo, {rows:,} rows of {WIDTH} floats", ["", "rows/s", "MB/s in"], found)


def online(folder: Path, for_s: float = 15.0) -> None:
    """One request every 50 ms, alone, and beside a score job of the same model on the same worker."""
    texts = sentences(1000)
    pa.parquet.write_table(pa.table({"text": texts}), folder / "online.parquet")
    with EmbeddedRedis() as server, workers(server.url, DEFAULT_POOL, str(MINILM)), Client(server.url) as client:
        latencies(client, texts, 3.0)
        measured = [("alone", latencies(client, texts, for_s), 0)]
        for length in (None, 256):
            options = Options("minilm", (str(folder / "online.parquet"),), "", broker=server.url, batch_length=length)
            scorer, ended, tally = open_scorer(options, print), Event(), Tally()
            job = Thread(target=_until, args=(ended, partial(seconds, options, scorer, tally)), daemon=True)
            job.start()
            name = "beside a score job" + (f", --batch-length {length}" if length else "")
            measured.append((name, latencies(client, texts, for_s), tally.rows))
            ended.set()
            job.join(60)
            scorer.close()
    rows = [
        [name, f"{percentile(ms, 0.5):.1f}", f"{percentile(ms, 0.99):.1f}", f"{scored / for_s:.0f}"]
        for name, ms, scored in measured
    ]
    table("online requests, one every 50 ms", ["", "p50 ms", "p99 ms", "rows/s of the job"], rows)


def latencies(client: Client, texts: list[str], for_s: float) -> list[float]:
    """Milliseconds of each request; they are sent by the clock, whatever the answers take."""
    found: list[float] = []
    began = time.monotonic()
    for number in range(int(for_s / 0.05)):
        time.sleep(max(0.0, began + number * 0.05 - time.monotonic()))
        started = time.perf_counter()
        client.infer("minilm", texts[number % len(texts)], cache=False)
        found.append((time.perf_counter() - started) * 1000)
    return found


def _until(ended: Event, run: Callable[[], object]) -> None:
    while not ended.is_set():
        run()


def hosts(folder: Path) -> None:
    """One and two processes with one job name, each with one thread."""
    texts = sentences(800)
    pa.parquet.write_table(pa.table({"text": texts}), folder / "hosts.parquet")
    found = []
    with EmbeddedRedis() as server:
        for count in (1, 2):
            started = time.perf_counter()
            command = [
                sys.executable, "-m", "inference_worker.cli", "score", "minilm", str(folder / "hosts.parquet"),
                "--to", str(folder / f"out-{count}"), "--local", str(MINILM), "--threads", "1", "--shard-rows", "100",
                "--name", f"bench-{count}", "--broker", server.url, "--progress", "none",
            ]  # fmt: skip
            running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(count)]
            if any(process.wait() for process in running):
                raise RuntimeError("a score process failed")
            found.append([str(count), f"{len(texts) / (time.perf_counter() - started):.1f}"])
    table("processes that share a job, loading included", ["processes", "sentences/s"], found)


def big(gigabytes: float, folder: Path) -> None:
    """Peak memory of scoring a file, beside that of scoring a few of its rows."""
    path, rows = folder / "big.parquet", 0
    block = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(np.random.random(WIDTH * 65_536)), WIDTH)})
    with pa.parquet.ParquetWriter(path, block.schema, compression="none") as writer:
        while path.stat().st_size < gigabytes * 1e9:
            writer.write_table(block)
            rows += block.num_rows
    pa.parquet.write_table(block.slice(0, 100), folder / "few.parquet")
    few, _ = peak_mb(folder / "few.parquet", folder / "out-few")
    whole, took = peak_mb(path, folder / "out-big")
    size = path.stat().st_size
    table(
        f"a file of {size / 1e9:.2f} GB, {rows:,} rows",
        ["", "peak MB"],
        [["100 rows of it", f"{few:.0f}"], [f"all of it, {size / took / 1e6:.0f} MB/s", f"{whole:.0f}"],
         ["difference", f"{whole - few:.0f}"]],
    )  # fmt: skip


def peak_mb(path: Path, out: Path) -> tuple[float, float]:
    """(peak resident MB, seconds) of the real command."""
    command = [
        sys.executable, "-m", "inference_worker.cli", "score", "echo", str(path), "--to", str(out), "--local", ECHO,
        "--threads", "1", "--progress", "none",
    ]  # fmt: skip
    started, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, _high_water_mb(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"the score command ended with {process.returncode}")
    return peak, time.perf_counter() - started


def _high_water_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["minilm", "echo", "online", "hosts"])
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--big", type=float, metavar="GB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scoring-") as name:
        folder = Path(name)
        if options.big is not None:
            big(options.big, folder)
            return
        parts: dict[str, Callable[[], None]] = {
            "minilm": lambda: minilm(options.sentences, options.rounds, folder),
            "echo": lambda: echo(300_000, options.rounds, folder),
            "online": lambda: online(folder),
            "hosts": lambda: hosts(folder),
        }
        for part in options.parts:
            parts[part]()


if __name__ == "__main__":
    main()
