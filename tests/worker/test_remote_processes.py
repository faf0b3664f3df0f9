"""Several processes and one cache: fetched once, resumed after a kill, kept while one of them lives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from inference_worker.models.weights import INDEX_FILE
from inference_worker.remote.cache import Cache
from tests.support.command import ROOT
from tests.support.model_server import ModelServer, model_server
from tests.support.repositories import LARGE, WEIGHTS, fetched, write_repository
from tests.support.waiting import wait_until

DATA = bytes(range(256)) * 4096
PROCESSES = 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ModelServer]:
    with model_server(write_repository(tmp_path / "models", DATA)) as it:
        yield it


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", LARGE)


@contextmanager
def fetcher(server: ModelServer, cache: Cache, *more: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.fetch_models", server.url, str(cache.folder), *more],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_ten_processes_fetch_each_file_once_and_share_it(server: ModelServer, cache: Cache) -> None:
    # Given ten processes that ask while the first of them fetches
    server.gates[WEIGHTS] = Event()
    processes = [fetcher(server, cache) for _ in range(PROCESSES)]
    started = [process.__enter__() for process in processes]
    wait_until(lambda: server.asked[INDEX_FILE] == PROCESSES, "all have seen the index", 60)
    # When its download ends
    server.gates[WEIGHTS].set()
    folders = {said(one) for one in started}
    for process in processes:
        process.__exit__(None, None, None)
    # Then all have the same files, which were sent once
    [folder] = folders
    assert (Path(folder) / WEIGHTS).read_bytes() == DATA
    assert server.asked == {INDEX_FILE: PROCESSES, WEIGHTS: 1, "m/1/model.toml": 1}


def test_a_killed_fetch_is_resumed_and_never_taken_half_made(server: ModelServer, cache: Cache) -> None:
    server.gates[WEIGHTS] = Event()
    with fetcher(server, cache) as process:
        # Files are written in blocks: some of the half that was sent is on the disk.
        wait_until(
            lambda: [one for one in (cache.folder / "parts").iterdir() if one.stat().st_size > len(DATA) // 4],
            "a part is there",
            60,
        )
        process.kill()
        process.wait()
    assert not list(cache.folder.glob("snapshots/*/files/**/w.bin"))
    server.gates[WEIGHTS].set()

    assert (fetched(server.url, cache).folder / WEIGHTS).read_bytes() == DATA
    [resumed] = server.ranges
    assert int(resumed.removeprefix("bytes=").rstrip("-")) > len(DATA) // 4


def test_what_a_live_process_uses_is_not_cleared_and_what_a_killed_one_used_is(
    server: ModelServer, cache: Cache
) -> None:
    with fetcher(server, cache) as process:
        folder = Path(said(process))
        [kept] = cache.clear()
        assert (kept.in_use, kept.name) == (True, server.url)
        assert (folder / WEIGHTS).read_bytes() == DATA
        process.kill()
        process.wait()
        assert cache.clear() == []
        assert not folder.exists()


def test_a_disk_that_takes_no_more_is_one_error_and_nothing_is_left_on_it(server: ModelServer, cache: Cache) -> None:
    with fetcher(server, cache, "100000") as process:
        told = said(process)

    assert told == (
        f"ConfigError: the cache {cache.folder} cannot be written: File too large; "
        "make room, or name another by --cache"
    )
    assert list((cache.folder / "parts").iterdir()) == []
