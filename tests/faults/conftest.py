"""Faults happen on a stage: hosts and clients as real processes around a real redis-server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.stage import Stage, stage_on
from tests.support.deployments import Server, Single


@pytest.fixture
def stage(redis_url: str, pool: str, tmp_path: Path) -> Iterator[Stage]:
    """On the Redis of all tests, which none may harm."""
    with stage_on(redis_url, tmp_path, pool) as it:
        yield it


@pytest.fixture
def single() -> Iterator[Single]:
    """A Redis of the test's own, with an append-only file."""
    with Single() as it:
        yield it


@pytest.fixture
def server(single: Single) -> Server:
    return single.primary()


@pytest.fixture
def own_stage(single: Single, tmp_path: Path) -> Iterator[Stage]:
    """On a Redis of the test's own."""
    with stage_on(single.url, tmp_path) as it:
        yield it


@pytest.fixture
def recovered(request: pytest.FixtureRequest) -> Callable[[float], None]:
    """Notes how long ago the fault was when all was answered: for reports (--junitxml), never for a verdict."""

    def note(since_s: float) -> None:
        request.node.user_properties.append(("recovered_s", f"{time.monotonic() - since_s:.2f}"))

    return note
