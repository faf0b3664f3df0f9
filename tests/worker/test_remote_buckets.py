"""Repositories in buckets of a real S3-compatible server and of a stand-in for Google's, listed or with an index."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from gcp_storage_emulator.server import create_server
from moto.server import ThreadedMotoServer

from common.errors import ConfigError
from inference_worker.models.weights import INDEX_FILE, digest, files_in
from inference_worker.remote import store
from inference_worker.remote.cache import Cache
from inference_worker.remote.snapshot import open_snapshot
from tests.support.repositories import LARGE, WEIGHTS, fetched, write_repository


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """The environment in which everybody finds the server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


@pytest.fixture(scope="module")
def gs() -> Iterator[dict[str, str]]:
    """The same for the other one, which speaks plain HTTP and no gRPC, and wants no credentials."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    yield {
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "NO_GCE_CHECK": "true",
    }
    server.stop()


@pytest.fixture(params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket."""
    for name, value in request.getfixturevalue(request.param).items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class(request.param).clear_instance_cache()
    name = f"bucket-{uuid4().hex[:8]}"
    fsspec.filesystem(request.param).mkdir(name)
    return f"{request.param}://{name}"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", LARGE)


def upload(folder: Path, bucket: str) -> None:
    files, root = fsspec.core.url_to_fs(bucket)
    files.put(f"{folder}/", f"{root}/models/", recursive=True)


def write(bucket: str, path: str, data: bytes) -> None:
    files, root = fsspec.core.url_to_fs(bucket)
    files.pipe_file(f"{root}/models/{path}", data)


def test_a_bucket_without_an_index_is_listed_and_seen_anew_when_it_changes(
    bucket: str, cache: Cache, tmp_path: Path
) -> None:
    folder = write_repository(tmp_path / "models", b"old")
    (folder / INDEX_FILE).unlink()
    upload(folder, bucket)

    before = fetched(f"{bucket}/models", cache)
    write(bucket, WEIGHTS, b"new")
    after = fetched(f"{bucket}/models", cache)

    assert (before.folder / WEIGHTS).read_bytes() == b"old"
    assert (after.folder / WEIGHTS).read_bytes() == b"new"
    assert digest(files_in(before.folder / "m/1")) == digest(files_in(folder / "m/1"))


def test_a_large_object_is_read_in_ranges_and_verified_by_the_index(
    bucket: str, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RANGE_BYTES", 1000)
    data = bytes(range(256)) * 50 + b"odd"
    upload(write_repository(tmp_path / "models", data), bucket)

    assert (fetched(f"{bucket}/models/", cache).folder / WEIGHTS).read_bytes() == data
    assert [entry.digest != "" for entry in cache.entries(cache.kept()[0].id)] == [True, True]


def test_an_object_that_is_not_what_the_index_says_is_refused(bucket: str, cache: Cache, tmp_path: Path) -> None:
    upload(write_repository(tmp_path / "models", b"1234"), bucket)
    write(bucket, WEIGHTS, b"4321")

    with pytest.raises(ConfigError, match=rf"'{WEIGHTS}' of {bucket}/models has the digest"):
        fetched(f"{bucket}/models", cache)


def test_a_bucket_that_is_not_there_is_told(bucket: str, cache: Cache) -> None:
    missing = f"{bucket.partition('://')[0]}://nothing-like-this/models"
    with pytest.raises(ConfigError, match=rf"there is no {missing}"):
        open_snapshot(missing, cache)
