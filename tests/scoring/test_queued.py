"""Through Redis: the same bytes as in one process, beside online traffic, and with any number of processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from common.connect import connect
from common.errors import ModelNotFound
from common.keys import DEFAULT_POOL
from gateway import Client
from inference_worker.scoring.members import jobs, status
from inference_worker.scoring.progress import None_, open_progress
from inference_worker.scoring.run import Ended, Options, run
from tests.scoring.conftest import MODELS, Score, contents, results, texts, write
from tests.support.command import CommandLine
from tests.support.deployments import Single
from tests.support.running import workers
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def served(redis_url: str) -> Iterator[str]:
    """A pool whose workers serve models.py; its name."""
    name = f"score-{uuid4().hex[:12]}"
    with workers(redis_url, name, MODELS, procs=2):
        yield name


@pytest.fixture
def queue(redis_url: str, served: str, tmp_path: Path):
    """Score files by the pool's workers."""

    def queue(model: str, *inputs: Path, to: str = "out", **options) -> Ended:
        wanted = Options(model, tuple(map(str, inputs)), str(tmp_path / to), broker=redis_url, pool=served, **options)
        return run(wanted, open_progress("none"))

    return queue


def test_the_queue_gives_the_same_bytes_as_this_process(tmp_path: Path, score: Score, queue, redis_url, served) -> None:
    """Others' requests for the same model do not mix into its batches."""
    path = write(tmp_path / "data.parquet", text=texts(300), id=list(range(300)))
    score("mates", path, to="local", shard_rows=100, keep=("id",))

    with Client(redis_url, pool=served) as client:
        others = [client.submit("mates", {"text": [text]}) for text in texts(200)]
        queue("mates", path, to="queued", shard_rows=100, keep=("id",))
        for one in others:
            one.result()

    assert contents(tmp_path / "queued") == contents(tmp_path / "local")


def test_a_bad_row_is_found_through_the_queue_too(tmp_path: Path, queue) -> None:
    numbers = [number if number != 77 else -77 for number in range(200)]

    queue("square", write(tmp_path / "data.parquet", number=numbers))

    table = results(tmp_path / "out")
    assert table["square"].null_count == 1
    assert "a negative number is refused" in table["_errors"][77].as_py()


def test_a_redis_that_is_killed_and_comes_again_costs_time_and_no_row(tmp_path: Path, score: Score) -> None:
    """Its worker is killed, too, while it runs a chunk."""
    path = write(tmp_path / "data.parquet", text=texts(200))
    score("mates", path, to="local", shard_rows=50)
    lines: list[str] = []
    pace = tmp_path / "pace"
    pace.write_text("0.02")

    with Single() as deployment, serving(deployment.url, pace) as supervisor:
        options = Options("mates", (str(path),), str(tmp_path / "out"), broker=deployment.url, shard_rows=50)
        with ThreadPoolExecutor(1) as threads:
            job = threads.submit(run, options, Told(lines))
            wait_until(lambda: (tmp_path / "out" / "_state").exists() or job.done(), "the job has begun", 30)
            deployment.servers[0].end(signal.SIGKILL)
            wait_until(lambda: any("the job waits for it" in line for line in lines), "it says that Redis is away", 30)
            deployment.servers[0].start()
            for child in children_of(supervisor):
                os.kill(child, signal.SIGKILL)
            job.result(60)

    assert contents(tmp_path / "out") == contents(tmp_path / "local")


class Told(None_):
    """What a job says, as a list."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def say(self, line: str) -> None:
        self._lines.append(line)


@contextmanager
def serving(url: str, pace: Path) -> Iterator[int]:
    """A worker of the default pool with a pace of its own; its supervisor's process id."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCORING_PACE", str(pace))
        with workers(url, DEFAULT_POOL, MODELS) as process:
            yield process.pid


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_model_that_nobody_serves_is_told_with_those_that_are(tmp_path: Path, queue) -> None:
    with pytest.raises(ModelNotFound, match="serves no model 'cube'; there is double:1, light:1"):
        queue("cube", write(tmp_path / "data.parquet", number=[1]))


def test_processes_with_one_name_share_the_shards(shell: CommandLine, score: Score, redis_url, served) -> None:
    write(shell.folder / "data.parquet", text=texts(600))
    score("mates", shell.folder / "data.parquet", to="whole", shard_rows=25)
    name = f"job-{uuid4().hex[:8]}"
    arguments = ("score", "mates", "data.parquet", "--to", "out", "--name", name, "--shard-rows", "25")
    arguments += ("--broker", redis_url, "--pool", served, "--progress", "none")

    with shell.running(*arguments) as one, shell.running(*arguments) as other:
        assert (one.wait(), other.wait()) == (0, 0), one.printed + other.printed

    assert contents(shell.folder / "out") == contents(shell.folder / "whole")
    client = connect(redis_url)
    assert name in jobs(client)
    found = status(client, name)
    assert [process.state for process in found.processes] == ["done", "done"]
    assert 600 <= found.rows <= 700
    leases = client.keys(f"iw:{{score:{name}}}:lease:*")
    assert leases == []
    assert client.ttl(f"iw:{{score:{name}}}:job") > 0


def test_a_job_is_cancelled_from_anywhere_and_goes_on_later(shell: CommandLine, score: Score, redis_url: str) -> None:
    write(shell.folder / "data.parquet", text=texts(400))
    score("mates", shell.folder / "data.parquet", to="whole", shard_rows=20)
    (shell.folder / "pace").write_text("0.05")
    name = f"job-{uuid4().hex[:8]}"
    arguments = ("score", "mates", "data.parquet", "--to", "out", "--local", MODELS, "--name", name)
    arguments += ("--shard-rows", "20", "--broker", redis_url, "--progress", "none")

    with shell.running(*arguments, SCORING_PACE=str(shell.folder / "pace")) as running:
        wait_until(lambda: (shell.folder / "out" / "_state" / "data-00000.json").exists(), "a shard is finished", 30)
        assert shell.run("score", "cancel", name, "--broker", redis_url).code == 0
        code = running.wait()
    shown = shell.run("score", "status", name, "--broker", redis_url)
    done = shell.run(*arguments)

    assert code == 130
    assert "cancelled" in shown.out
    assert done.code == 0, done.err
    assert contents(shell.folder / "out") == contents(shell.folder / "whole")


def test_a_row_that_is_too_large_for_a_request_costs_only_itself(tmp_path: Path, queue) -> None:
    large = "x" * (65 * 1024 * 1024)

    queue("shout", write(tmp_path / "data.parquet", text=["a", large, "b"]), outputs=("letters",))

    table = results(tmp_path / "out")
    assert table["letters"].to_pylist() == [1, None, 1]
    assert "payload_too_large" in table["_errors"][1].as_py()
