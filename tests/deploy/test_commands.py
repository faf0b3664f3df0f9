"""Each command of ours in deploy/ is one that the program takes, and has the time that it asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_worker.cli import cli
from tests.deploy.manifests import Command, commands

ALL = list(commands())
#: What a supervisor and its processes need beside what they were given to drain, with room for a busy machine.
SPARE_S = 10


@pytest.mark.parametrize("command", ALL, ids=str)
def test_the_program_takes_it(command: Command, tmp_path: Path) -> None:
    name, *rest = command.arguments
    found = cli.get_command(cli.make_context("inference-worker", ["--help"], resilient_parsing=True), name)
    assert found is not None, f"there is no command '{name}'"

    # The models' folder is there on the host that it is written for.
    with found.make_context(name, [str(tmp_path) if one == "/models" else one for one in rest]) as context:
        assert context.params


@pytest.mark.parametrize("command", [one for one in ALL if one.grace_s is not None], ids=str)
def test_it_is_not_killed_before_it_has_drained(command: Command) -> None:
    drains_s = command.seconds("--drain") + command.seconds("--notice")

    assert drains_s > 0, "what it is given to drain is not written down"
    assert command.grace_s is not None
    assert command.grace_s >= drains_s + SPARE_S
