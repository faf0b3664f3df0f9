"""Repositories at an HTTP server that is slow, breaks off, lies, or is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from common.errors import ConfigError, RepositoryUnavailable
from inference_worker.models.weights import INDEX_FILE, digest, files_in
from inference_worker.remote import store
from inference_worker.remote.cache import Cache
from inference_worker.remote.snapshot import open_snapshot
from tests.support.model_server import ModelServer, model_server
from tests.support.repositories import LARGE, WEIGHTS, fetched, write_index, write_repository
from tests.support.waiting import wait_until

DATA = bytes(range(256)) * 4096


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ModelServer]:
    with model_server(write_repository(tmp_path / "models", DATA)) as it:
        yield it


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", LARGE)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FIRST_WAIT_S", 0.001)


def parts(cache: Cache) -> list[Path]:
    return list((cache.folder / "parts").iterdir())


def test_what_is_fetched_has_the_digest_of_what_was_published(server: ModelServer, cache: Cache) -> None:
    (server.folder / "m/1/a b#c%.txt").write_text("odd name")
    write_index(server.folder)

    snapshot = fetched(server.url, cache)

    here, there = snapshot.folder / "m/1", server.folder / "m/1"
    assert digest(files_in(here)) == digest(files_in(there))
    assert parts(cache) == []


def test_nothing_is_asked_for_twice(server: ModelServer, cache: Cache) -> None:
    fetched(server.url, cache)
    fetched(server.url, cache)

    assert server.asked == {INDEX_FILE: 2, WEIGHTS: 1, "m/1/model.toml": 1}


def test_how_far_it_is_is_told_until_all_is_there(server: ModelServer, cache: Cache) -> None:
    told: list[tuple[str, int, int]] = []

    open_snapshot(server.url, cache).fetch(progress=lambda *now: told.append(now))

    total = len(DATA) + (server.folder / "m/1/model.toml").stat().st_size
    assert {(name, of) for name, _, of in told} == {(server.url, total)}
    assert max(done for _, done, _ in told) == told[-1][1] == total


def test_a_model_of_an_indexed_repository_can_be_named(server: ModelServer, cache: Cache) -> None:
    write_repository(server.folder, b"other", "n")

    snapshot = fetched(f"{server.url}/m/1", cache)

    assert snapshot.folder.parts[-2:] == ("m", "1")
    assert {path.name for path in snapshot.folder.iterdir()} == {"model.toml", "w.bin"}


def test_an_answer_that_breaks_off_is_resumed_where_it_ended(server: ModelServer, cache: Cache) -> None:
    server.breaks[WEIGHTS] = 7

    path = fetched(server.url, cache).folder / WEIGHTS

    assert path.read_bytes() == DATA
    # What was sent last before the end may be lost with it.
    starts = [int(one.removeprefix("bytes=").rstrip("-")) for one in server.ranges]
    assert starts == sorted(starts)
    assert 0 < starts[0] <= len(DATA) // 2
    assert server.asked[WEIGHTS] == 8


def test_a_server_without_ranges_sends_it_all_again(server: ModelServer, cache: Cache) -> None:
    server.breaks[WEIGHTS], server.knows_ranges = 1, False

    assert (fetched(server.url, cache).folder / WEIGHTS).read_bytes() == DATA


@pytest.mark.usefixtures("impatient")
def test_a_server_that_refuses_for_a_moment_is_asked_again(server: ModelServer, cache: Cache) -> None:
    server.refuses[INDEX_FILE], server.refuses[WEIGHTS] = 2, 2

    assert (fetched(server.url, cache).folder / WEIGHTS).read_bytes() == DATA


@pytest.mark.usefixtures("impatient")
def test_a_server_that_stays_away_is_told_and_what_came_is_kept(server: ModelServer, cache: Cache) -> None:
    # Given a download that breaks off, and a server that then answers no more
    server.breaks[WEIGHTS] = 1
    gate = server.gates[WEIGHTS] = Event()
    errors: list[Exception] = []

    def fetch() -> None:
        try:
            fetched(server.url, cache)
        except Exception as error:
            errors.append(error)

    thread = Thread(target=fetch)
    thread.start()
    wait_until(lambda: server.asked[WEIGHTS], "the weights are asked for")
    server.refuses[WEIGHTS] = 100
    gate.set()
    thread.join()
    # Then the error names file and server, and the next one goes on from there
    [error] = errors
    assert isinstance(error, RepositoryUnavailable)
    assert str(error).startswith(f"'{WEIGHTS}' of {server.url} cannot be reached: ClientResponseError: 503")
    [size] = [path.stat().st_size for path in parts(cache)]
    assert 0 < size <= len(DATA) // 2
    server.refuses[WEIGHTS] = 0
    assert (fetched(server.url, cache).folder / WEIGHTS).read_bytes() == DATA
    assert server.ranges[-1] == f"bytes={size}-"


@pytest.mark.usefixtures("impatient")
def test_while_its_server_is_away_the_copy_in_the_cache_is_served(
    server: ModelServer, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    before = fetched(server.url, cache).folder
    server.refuses[INDEX_FILE] = 100

    assert fetched(server.url, cache).folder == before
    assert "its copy in the cache is used" in caplog.text
    with pytest.raises(RepositoryUnavailable, match=r"cannot be reached: ClientResponseError: 503"):
        open_snapshot(f"{server.url}/m", cache)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (DATA[:-1] + b"!", "has the digest"),
        (DATA + b"more", f"has more than the {len(DATA)} bytes that its index promises"),
    ],
)
def test_a_server_that_lies_is_told_and_nothing_of_it_is_kept(
    server: ModelServer, cache: Cache, sent: bytes, told: str
) -> None:
    server.lies[WEIGHTS] = sent

    with pytest.raises(ConfigError) as caught:
        fetched(server.url, cache)

    assert str(caught.value).startswith(f"'{WEIGHTS}' of {server.url} ")
    assert told in str(caught.value)
    assert server.asked[WEIGHTS] == 2
    assert parts(cache) == []
    assert not any(path.stat().st_size == len(DATA) for path in (cache.folder / "blobs").iterdir())


def test_a_part_of_another_time_is_thrown_away(server: ModelServer, cache: Cache) -> None:
    snapshot = open_snapshot(server.url, cache)
    [key] = [one.digest for one in cache.entries(cache.kept()[0].id) if one.path == WEIGHTS]
    cache.part(key).write_bytes(b"not the beginning")

    snapshot.fetch()

    assert (snapshot.folder / WEIGHTS).read_bytes() == DATA


def test_a_server_without_an_index_is_told_what_to_do(server: ModelServer, cache: Cache) -> None:
    (server.folder / INDEX_FILE).unlink()

    with pytest.raises(ConfigError, match=r"has no models\.index\.json, and this kind of store lists no files; write"):
        open_snapshot(server.url, cache)


def test_no_secret_of_the_url_is_told(server: ModelServer, cache: Cache, impatient: None) -> None:
    url = server.url.replace("://", "://me:hunter2@")
    server.refuses[WEIGHTS] = 100

    with pytest.raises(RepositoryUnavailable) as caught:
        fetched(f"{url}?sig=topsecret", cache)

    assert "hunter2" not in str(caught.value)
    assert "topsecret" not in str(caught.value)
    assert not any("topsecret" in path.read_text("latin-1") for path in cache.folder.rglob("*") if path.is_file())
