"""One server with the users of deploy/redis/users.acl for all tests that need it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.guarded import Guarded, guarded
from tests.support.command import CommandLine, command_line


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


@pytest.fixture
def shell(tmp_path) -> Iterator[CommandLine]:
    """An empty folder to run commands in. At the end no process and no file of them may be left."""
    with command_line(tmp_path) as it:
        yield it
