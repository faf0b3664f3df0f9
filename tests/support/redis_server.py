"""The Redis of a test run: the one that the environment names, else one of our own, in memory, on a unix socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from common.embedded import EmbeddedRedis

ENVIRONMENT = "INFERENCE_WORKER_TEST_REDIS"


@contextmanager
def redis_server() -> Iterator[str]:
    """The broker URL. A server that is named is never flushed: each test has a pool, and removes what it left there.

    Where there is no server at all, that is an error which says what to install, never a skip.
    """
    named = os.environ.get(ENVIRONMENT)
    if named:
        yield named
        return
    with EmbeddedRedis() as server:
        yield server.url
