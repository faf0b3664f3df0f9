"""A job goes on from its finished shards, whatever ended it, and its results are the same bytes."""

from __future__ import annotations

import errno
import os
import random
import signal
from pathlib import Path

import pytest

from common.errors import ConfigError, DiskFull
from inference_worker.scoring.folder import Folder
from inference_worker.scoring.job import TooManyErrors
from inference_worker.scoring.shards import Shard
from tests.scoring.conftest import MODELS, Score, contents, results, texts, write
from tests.support.command import CommandLine, Running
from tests.support.waiting import wait_until

#: A batch takes so long: a job of 600 rows in batches of 8 or fewer then takes about two seconds.
PACE_S = 0.02
KILLS = int(os.environ.get("SCORING_KILLS", "3"))


def shards(folder: Path) -> int:
    """Finished ones; of a complete job none is left to count."""
    return len(list((folder / "_state").rglob("*-?????.json")))


def test_results_do_not_depend_on_how_often_the_job_was_killed(shell: CommandLine, score: Score) -> None:
    """SIGKILL at moments drawn with a fixed seed; `SCORING_KILLS=10` for more of them."""
    write(shell.folder / "data.parquet", text=texts(600), id=list(range(600)))
    score("mates", shell.folder / "data.parquet", to="whole", shard_rows=50, keep=("id",))
    (shell.folder / "pace").write_text(str(PACE_S))
    arguments = ("score", "mates", "data.parquet", "--to", "out", "--local", MODELS, "--threads", "1")
    arguments += ("--shard-rows", "50", "--keep", "id", "--progress", "none")
    chance = random.Random(7)

    for finished in sorted(chance.sample(range(1, 11), KILLS)):
        with shell.running(*arguments, SCORING_PACE=str(shell.folder / "pace")) as running:
            wait_for_shards(running, shell.folder / "out", finished)
            running.process.send_signal(signal.SIGKILL)
            running.wait()
    done = shell.run(*arguments)

    assert done.code == 0, done.err
    assert contents(shell.folder / "out") == contents(shell.folder / "whole")
    assert results(shell.folder / "out")["id"].to_pylist() == list(range(600))


def wait_for_shards(running: Running, folder: Path, count: int) -> None:
    wait_until(
        lambda: shards(folder) >= count or running.process.poll() is not None, f"{count} shards are finished", 30
    )


def test_what_is_finished_is_not_scored_again(tmp_path: Path, score: Score) -> None:
    path = write(tmp_path / "data.parquet", number=[1] * 30 + [-1] * 30)
    with pytest.raises(TooManyErrors):
        score("square", path, shard_rows=10, max_errors=5)
    finished = shards(tmp_path / "out")

    ended = score("square", path, shard_rows=10)

    assert finished >= 3
    assert ended.tally.skipped == 10 * finished
    assert ended.tally.rows == 60 - ended.tally.skipped
    assert ended.manifest["rows"] == 60


def test_a_complete_job_is_left_as_it_is(tmp_path: Path, score: Score) -> None:
    path = write(tmp_path / "data.parquet", number=[1, 2])
    first = score("square", path)

    assert score("square", path).manifest == first.manifest
    assert score("square", path).tally.rows == 0


def test_a_job_refuses_to_go_on_with_something_else_and_says_with_what(tmp_path: Path, score: Score) -> None:
    path = write(tmp_path / "data.parquet", number=[1, 2])
    score("square", path)

    with pytest.raises(ConfigError, match="begun with something else: shard_rows was 8192, and is 5"):
        score("square", path, shard_rows=5)
    with pytest.raises(ConfigError, match='format was "parquet", and is "csv"'):
        score("square", path, write_as="csv")
    write(path, number=[1, 2, 3, 4])
    with pytest.raises(ConfigError, match=r"the input '.*data\.parquet' had \d+ bytes, and has \d+; put it back"):
        score("square", path)


def test_a_folder_with_other_files_is_refused(tmp_path: Path, score: Score) -> None:
    path = write(tmp_path / "data.parquet", number=[1])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()

    with pytest.raises(ConfigError, match="holds files already, and they are no results of a score job"):
        score("square", path)


def test_a_half_written_file_of_a_killed_process_is_removed_at_the_end(tmp_path: Path, score: Score) -> None:
    path = write(tmp_path / "data.parquet", number=[1] * 20 + [-1])
    with pytest.raises(TooManyErrors):
        score("square", path, shard_rows=10, max_errors=0)
    (tmp_path / "out" / ".data-00002.parquet.tmp-0123456789ab").write_bytes(b"half")

    score("square", path, shard_rows=10)

    assert sorted(contents(tmp_path / "out")) == [f"data-0000{number}.parquet" for number in range(3)]


def test_a_disk_that_is_full_ends_the_job_which_goes_on_when_there_is_room(tmp_path: Path, score: Score) -> None:
    path = write(tmp_path / "data.parquet", number=list(range(100)))
    (tmp_path / "out" / "_state").mkdir(parents=True)
    full = tmp_path / "out" / "data-00005.parquet"

    def no_room(file: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = Folder(str(tmp_path / "out"))
    with pytest.raises(DiskFull, match=r"no room for 'data-00005.parquet' in .*run the same command again"):
        folder.save(Shard(0, 5, 50, 10, "data-00005"), {"data-00005.parquet": no_room}, {})
    assert list((tmp_path / "out").rglob("*data*")) == []
    (tmp_path / "out" / "_state").rmdir()

    assert score("square", path, shard_rows=10).manifest["rows"] == 100
    assert full.exists()
