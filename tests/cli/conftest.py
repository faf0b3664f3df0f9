"""A shell for each test, and one `up` for all of those that only ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import MODELS, CommandLine, command_line


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[CommandLine]:
    """An empty folder to run commands in. At the end no process and no file of them may be left."""
    with command_line(tmp_path) as it:
        yield it


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A shell on a machine on which another one has started `up` with the models of support/models/commands.py."""
    with command_line(tmp_path_factory.mktemp("served")) as it, it.running("up", MODELS, "--device", "cpu") as up:
        up.wait_for(" serves ")
        yield it
        assert up.stop() == 0, up.printed
