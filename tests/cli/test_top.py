"""`top`: what it makes of two looks, one frame for pipes, and a live view that a key ends."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
from dataclasses import replace
from typing import Any

from rich.console import Console

from common.memory import Memory
from gateway.admin.pools import PoolStatus, Snapshot, WorkerStatus
from inference_worker.cli.top.figures import figures
from inference_worker.cli.top.frame import frame
from tests.support.command import COMMAND, ROOT, CommandLine
from tests.support.waiting import wait_until


def worker(name: str, lease_left_ms: int = 9_000, **about: Any) -> WorkerStatus:
    told = {
        "device": "cuda:0",
        "state": "ready",
        "batches": 0,
        "rows": 0,
        "finished": 0,
        "busy_s": 0.0,
        "waited_s": 0.0,
    }
    return WorkerStatus(name, lease_left_ms, {**told, **about})


def pool(*workers: WorkerStatus, **more: Any) -> PoolStatus:
    backlog = {"high": 0, "normal": 0, "low": 0}
    status = PoolStatus("gpu", backlog, 0, None, {}, 0, workers, (), {}, 0)
    return replace(status, **more)


def shown(before: Snapshot, after: Snapshot) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(frame(figures(before, after), "redis://broker", after.memory, "12:00:00"))
    return console.export_text()


def test_rates_and_means_are_those_between_two_looks() -> None:
    before = Snapshot(0, (pool(worker("a", batches=10, rows=40, finished=40, busy_s=1.0, waited_s=5.0)),))
    counted = {"batches": 30, "rows": 240, "finished": 100, "failed": 4, "busy_s": 2.0, "waited_s": 5.5}
    after = Snapshot(2_000, (pool(worker("a", **counted)),))

    [line] = figures(before, after).workers
    assert (line.work.finished, line.work.failed, line.work.rows_a_batch) == (30, 2, 10)
    assert (line.work.busy, line.work.wait_ms, line.work.compute_ms) == (0.5, 25, 50)
    assert figures(before, after).pools[0].work == line.work


def test_a_worker_that_was_started_again_counts_from_zero_and_one_look_gives_no_rates() -> None:
    before = Snapshot(0, (pool(worker("a", batches=100, finished=1000)),))
    after = Snapshot(1_000, (pool(worker("a", batches=1, finished=3)),))

    assert figures(before, after).pools[0].work.finished == 3
    assert figures(after, after).pools[0].work.finished == 0


def test_trouble_stands_out() -> None:
    backlog = {"high": 7, "normal": 12_345, "low": 0}
    broken = worker("b", lease_left_ms=-5, state="crash looping", restarts=3)
    after = Snapshot(
        1, (pool(worker("a"), broken, backlog=backlog, oldest_ms=61_000, dead_letters=2),), Memory(96, 100)
    )

    text = shown(after, after)
    assert re.search(r"gpu +1/2 +7 +12,345 +0 +0 +61\.0 s ", text)
    assert "2 dead letters" in text
    assert re.search(r"b +cuda:0 +crash looping .* 3 +run out", text)


def test_names_of_others_steer_no_terminal() -> None:
    after = Snapshot(1, (pool(worker("\x1b[2Ja", device="\x1b]0;x\x07", running="m\n:1", busy_ms=5)),))

    assert "\x1b" not in shown(after, after)


def test_one_frame_for_a_pipe_holds_pools_workers_and_models(served: CommandLine) -> None:
    done = served.run("top", "--once", "--interval", "1")

    assert done.code == 0, done.err
    assert re.search(r"^ default-pool +1/1 ", done.out, re.MULTILINE)
    assert re.search(r"^ greet:1 +default-pool +prod +1 +1 ", done.out, re.MULTILINE)
    assert "q quits" not in done.out
    assert "\x1b" not in done.out


def test_a_terminal_sees_it_live_until_q_and_is_left_as_it_was(served: CommandLine) -> None:
    ours, theirs = pty.openpty()
    environment = served.environment({"TERM": "xterm", "COLUMNS": "120", "LINES": "40"})
    process = subprocess.Popen(
        [*COMMAND, "top", "--interval", "1"], cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = bytearray()
    os.set_blocking(ours, False)

    def read() -> bytes:
        try:
            seen.extend(os.read(ours, 65_536))
        except (BlockingIOError, OSError):
            return bytes(seen)
        return bytes(seen)

    try:
        wait_until(lambda: read().count(b"default-pool") > 4, "it shows more than one frame", 20)
        os.write(ours, b"q")
        wait_until(lambda: (read(), process.poll())[1] is not None, "q ends it", 10)
        read()
    finally:
        process.kill()
        process.wait()
        os.close(ours)

    assert process.returncode == 0, seen
    assert b"\x1b[?1049h" in seen, "it has a screen of its own"
    assert seen.rstrip().endswith(b"\x1b[?25h\x1b[?1049l"), "its cursor is back, and then its screen"
