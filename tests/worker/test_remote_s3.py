"""Repositories in a bucket of a real S3-compatible server, as objects are there: listed or with an index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from common.errors import ConfigError
from inference_worker.models.weights import INDEX_FILE, digest, files_in
from inference_worker.remote import store
from inference_worker.remote.cache import Cache
from inference_worker.remote.snapshot import open_snapshot
from tests.support.repositories import LARGE, WEIGHTS, fetched, write_repository


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, and the environment in which everybody finds its server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    name = f"bucket-{uuid4().hex[:8]}"
    fsspec.filesystem("s3").mkdir(name)
    return name


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", LARGE)


def upload(folder: Path, bucket: str) -> None:
    fsspec.filesystem("s3").put(f"{folder}/", f"{bucket}/models/", recursive=True)


def test_a_bucket_without_an_index_is_listed_and_seen_anew_when_it_changes(
    bucket: str, cache: Cache, tmp_path: Path
) -> None:
    folder = write_repository(tmp_path / "models", b"old")
    (folder / INDEX_FILE).unlink()
    upload(folder, bucket)

    before = fetched(f"s3://{bucket}/models", cache)
    fsspec.filesystem("s3").pipe_file(f"{bucket}/models/{WEIGHTS}", b"new")
    after = fetched(f"s3://{bucket}/models", cache)

    assert (before.folder / WEIGHTS).read_bytes() == b"old"
    assert (after.folder / WEIGHTS).read_bytes() == b"new"
    assert digest(files_in(before.folder / "m/1")) == digest(files_in(folder / "m/1"))


def test_a_large_object_is_read_in_ranges_and_verified_by_the_index(
    bucket: str, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RANGE_BYTES", 1000)
    data = bytes(range(256)) * 50 + b"odd"
    upload(write_repository(tmp_path / "models", data), bucket)

    assert (fetched(f"s3://{bucket}/models/", cache).folder / WEIGHTS).read_bytes() == data
    assert [entry.digest != "" for entry in cache.entries(cache.kept()[0].id)] == [True, True]


def test_an_object_that_is_not_what_the_index_says_is_refused(bucket: str, cache: Cache, tmp_path: Path) -> None:
    upload(write_repository(tmp_path / "models", b"1234"), bucket)
    fsspec.filesystem("s3").pipe_file(f"{bucket}/models/{WEIGHTS}", b"4321")

    with pytest.raises(ConfigError, match=rf"'{WEIGHTS}' of s3://{bucket}/models has the digest"):
        fetched(f"s3://{bucket}/models", cache)


def test_a_bucket_that_is_not_there_is_told(bucket: str, cache: Cache) -> None:
    with pytest.raises(ConfigError, match=r"there is no s3://nothing-like-this/models"):
        open_snapshot("s3://nothing-like-this/models", cache)
