"""One `up` for all tests that only ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.command import MODELS, CommandLine, command_line


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A shell on a machine on which another one has started `up` with the models of support/models/commands.py."""
    with command_line(tmp_path_factory.mktemp("served")) as it, it.running("up", MODELS, "--device", "cpu") as up:
        up.wait_for(" serves ")
        yield it
        assert up.stop() == 0, up.printed
