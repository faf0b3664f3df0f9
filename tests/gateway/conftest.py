"""Servers of a test's own, for tests that flush, stop or cut off what others share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from common.embedded import EmbeddedRedis


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """A server that nobody else uses. It may be flushed, stopped and started again; it keeps no data then."""
    with EmbeddedRedis() as server:
        yield server
