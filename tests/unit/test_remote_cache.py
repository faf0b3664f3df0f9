"""The host's cache: contents are there once, what is in use stays, what was used longest ago goes."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from common.errors import ConfigError, DiskFull, InferenceError, RepositoryUnavailable
from inference_worker.remote.cache import Cache, disk_errors
from inference_worker.remote.lease import is_leased, lease
from inference_worker.remote.snapshot import Snapshot, open_snapshot
from tests.support.repositories import LARGE, WEIGHTS, fetched, write_repository

MB = b"x" * 10**6


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", LARGE)


def in_memory(files: dict[str, bytes]) -> str:
    """A repository of its own in a store that lists."""
    url = f"memory://{uuid4().hex}/models"
    store = fsspec.filesystem("memory")
    for path, data in files.items():
        store.pipe_file(f"{url}/{path}", data)
    return url


def contents(snapshot: Snapshot) -> dict[str, bytes]:
    files = [path for path in snapshot.folder.rglob("*") if path.is_file()]
    return {path.relative_to(snapshot.folder).as_posix(): path.read_bytes() for path in files}


def test_a_store_that_lists_needs_no_index(cache: Cache) -> None:
    url = in_memory({WEIGHTS: b"12", "m/1/empty": b"", "m/1/.hidden": b"3", "m/1/__pycache__/x.pyc": b"4"})

    assert contents(fetched(url, cache)) == {WEIGHTS: b"12", "m/1/empty": b""}


def test_a_changed_store_is_seen_by_the_next_look_and_the_old_snapshot_stays(cache: Cache) -> None:
    url = in_memory({WEIGHTS: b"old"})
    before = fetched(url, cache)

    fsspec.filesystem("memory").pipe_file(f"{url}/{WEIGHTS}", b"new")

    assert contents(fetched(url, cache)) == {WEIGHTS: b"new"}
    assert contents(before) == {WEIGHTS: b"old"}


def test_two_models_with_the_same_file_share_it(cache: Cache) -> None:
    one = fetched(in_memory({"a/1/w.bin": MB, "b/1/w.bin": MB}), cache)
    two = fetched(in_memory({WEIGHTS: MB}), cache)

    paths = [one.folder / "a/1/w.bin", one.folder / "b/1/w.bin", two.folder / WEIGHTS]
    assert len({path.stat().st_ino for path in paths}) == 1
    assert cache.bytes() < 2 * len(MB)


def test_an_index_is_used_where_there_is_one(tmp_path: Path, cache: Cache) -> None:
    folder = write_repository(tmp_path / "models")
    (folder / "m/1/left").write_text("not in the index")

    assert contents(fetched(f"file://{folder}", cache)).keys() == {WEIGHTS, "m/1/model.toml"}


def test_a_link_in_a_listed_store_is_refused(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "models/m/1").mkdir(parents=True)
    (tmp_path / "models/m/1/link").symlink_to("/etc/hostname")

    with pytest.raises(ConfigError, match=r"'m/1/link' of file://.* is a link; put the file itself there"):
        open_snapshot(f"file://{tmp_path}/models", cache)


def test_nothing_is_written_for_an_index_that_is_refused(tmp_path: Path, cache: Cache) -> None:
    index = b'{"version": 1, "files": [{"path": "../x", "size": 1, "blake2b_256": "%s"}]}' % (b"0" * 64)
    before = sorted(cache.folder.rglob("*"))

    with pytest.raises(ConfigError, match=r"the file '\.\./x' is refused"):
        open_snapshot(in_memory({"models.index.json": index}), cache)

    assert sorted(cache.folder.rglob("*")) == before


def test_a_corrupt_file_in_the_cache_is_fetched_again_and_told(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    # Given two models that share a file, and a disk that lost a part of it
    url, other = in_memory({WEIGHTS: MB}), in_memory({WEIGHTS: MB})
    path, shared = fetched(url, cache).folder / WEIGHTS, fetched(other, cache)
    path.chmod(0o644)
    path.write_bytes(MB[:-1])
    # Then neither is ever given what is wrong
    assert contents(fetched(url, cache)) == {WEIGHTS: MB}
    shared.fetch()
    assert contents(shared) == {WEIGHTS: MB}
    assert f"{path} is not what was fetched from {url}: corrupt, and fetched again" in caplog.text


def test_what_was_used_longest_ago_makes_room(cache: Cache, tmp_path: Path) -> None:
    # Given three models of 1 MB, the first of them used last
    urls = [in_memory({WEIGHTS: bytes([one]) * 10**6}) for one in range(3)]
    for number, url in enumerate(urls):
        fetched(url, cache)
        _last_used(cache, url, 1000 + number)
    _last_used(cache, urls[0], 2000)
    # When a fourth comes into a cache for three
    small = Cache(cache.folder, int(3.5e6))
    fetched(in_memory({WEIGHTS: MB}), small)
    # Then the second is gone, and its file with it
    assert {one.name for one in small.kept()} & set(urls) == {urls[0], urls[2]}
    assert small.bytes() < 3.5e6


def test_what_is_in_use_stays_and_what_then_does_not_fit_is_refused_with_figures(cache: Cache) -> None:
    small = Cache(cache.folder, int(1.5e6))
    used = fetched(in_memory({WEIGHTS: MB}), small)

    with pytest.raises(ConfigError, match=r"1\.0 MB are to be fetched, and the cache .* holds 1\.0 MB that are in use"):
        fetched(in_memory({WEIGHTS: MB[:-1]}), small)

    assert contents(used) == {WEIGHTS: MB}
    del used
    fetched(in_memory({WEIGHTS: MB[:-1]}), small)


def test_what_the_disk_has_no_room_for_is_refused_with_figures_and_may_come_again(cache: Cache) -> None:
    with pytest.raises(DiskFull, match=r"1,000,000,000,000\.0 MB are to be fetched, and the disk of the cache .* has "):
        Cache(cache.folder, 10**19).make_room(10**18)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EROFS, ConfigError)]
)
def test_a_full_disk_is_no_matter_of_configuration(tmp_path: Path, number: int, kind: type[InferenceError]) -> None:
    told = r"cannot be written: .*; make room, or name another by --cache"
    with pytest.raises(kind, match=told), disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))


def test_of_a_folder_that_is_not_mounted_the_copy_in_the_cache_is_served_with_a_warning(
    tmp_path: Path, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a repository that was fetched before its folder went away
    folder = write_repository(tmp_path / "models")
    before = contents(fetched(f"file://{folder}", cache))
    folder.rename(tmp_path / "unmounted")
    # When it is gone, and when only the place where it is mounted is there
    for there in (False, True):
        if there:
            folder.mkdir()
        caplog.clear()

        assert contents(fetched(f"file://{folder}", cache)) == before
        assert "there are no files at file://" in caplog.text
        assert "its copy in the cache is used" in caplog.text


def test_a_folder_without_files_and_without_a_copy_may_be_mounted_later(tmp_path: Path, cache: Cache) -> None:
    with pytest.raises(RepositoryUnavailable, match="is it mounted, and the URL right"):
        open_snapshot(f"file://{tmp_path}/models", cache)


def test_clearing_keeps_what_is_in_use_and_removes_all_else(cache: Cache) -> None:
    kept, gone = fetched(in_memory({WEIGHTS: MB}), cache), in_memory({WEIGHTS: b"gone"})
    fetched(gone, cache)
    cache.part("half").write_bytes(b"half")

    left = cache.clear()

    assert [(one.name, one.in_use) for one in left] == [(kept.name, True)]
    assert [
        path.stat().st_size for path in cache.folder.rglob("*") if path.is_file() and path.stat().st_size > 999
    ] == [len(MB)] * 2
    assert contents(kept) == {WEIGHTS: MB}
    del kept
    assert cache.clear() == []


def test_a_removal_that_was_cut_short_is_finished_by_the_next(cache: Cache) -> None:
    fetched(in_memory({WEIGHTS: MB}), cache)
    [one] = cache.kept()
    cache.snapshot(one.id).rename(cache.snapshot(f".{one.id}"))

    assert cache.kept() == []
    cache.clear()
    assert list((cache.folder / "snapshots").iterdir()) == []
    assert list((cache.folder / "blobs").iterdir()) == []


def test_a_lease_lasts_as_long_as_who_holds_it(tmp_path: Path) -> None:
    held = lease(tmp_path / "used")
    other = lease(tmp_path / "used")
    assert is_leased(tmp_path / "used")
    held.end()
    assert is_leased(tmp_path / "used")
    del other
    assert not is_leased(tmp_path / "used")


def test_a_cache_that_anyone_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)

    with pytest.raises(ConfigError, match="may be written by every user"):
        Cache(folder, LARGE)


def test_a_package_that_is_missing_is_told_with_its_extra(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tenacity", None)

    with pytest.raises(
        ConfigError, match=r"memory:// needs a package .*tenacity.*pip install 'inference-worker\[remote\]'"
    ):
        open_snapshot("memory://models", cache)


def test_a_kind_of_store_that_nobody_knows_is_told(cache: Cache) -> None:
    with pytest.raises(ConfigError, match="nothing://here cannot be opened: Protocol not known"):
        open_snapshot("nothing://here", cache)


def _last_used(cache: Cache, url: str, when_s: float) -> None:
    for one in cache.kept():
        if one.name == url:
            os.utime(cache.snapshot(one.id) / "used", (when_s, when_s))
