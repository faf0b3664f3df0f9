"""One server with the users of deploy/redis/users.acl for all tests that need it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.guarded import Guarded, guarded


@pytest.fixture(scope="session")
def secured() -> Iterator[Guarded]:
    with guarded() as server:
        yield server


@pytest.fixture
def wiped(secured: Guarded) -> Guarded:
    """The same with nothing in it, and nothing refused yet."""
    secured.admin.flushall()
    secured.refused()
    return secured
