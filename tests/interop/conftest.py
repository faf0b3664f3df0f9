"""One pool for each file here, served by a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from common.keys import POOLS
from tests.support.leaks import keys_of, leaked_keys
from tests.support.running import ROOT, workers

if TYPE_CHECKING:
    import redis

MODELS = (ROOT / "examples" / "vectors.py", ROOT / "tests" / "support" / "models" / "interop.py")


@pytest.fixture(scope="module")
def served_pool(redis_url: str, redis_client: redis.Redis) -> Iterator[str]:
    """Its name. At the end nothing of it may be left without a TTL."""
    name = f"interop-{uuid4().hex[:12]}"
    with workers(redis_url, name, *MODELS):
        yield name
    leaked = leaked_keys(redis_client, name)
    redis_client.delete(*keys_of(redis_client, name))
    redis_client.srem(POOLS, name)
    assert leaked == [], "keys without a TTL that are not permanent"
