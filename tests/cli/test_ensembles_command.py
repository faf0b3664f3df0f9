"""`ensembles list` and `ensembles check`, and `infer` with an ensemble."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import CommandLine

LOUD = """\
[loud.steps.greet]
model = "greet"
version = "prod"
inputs.name = "request.name"

[loud.steps.shout]
model = "shout"
inputs.text = "greet.output"

[loud.outputs]
text = "shout.output"
"""


@pytest.fixture
def file(served: CommandLine) -> Path:
    path = served.folder / "ensembles.toml"
    path.write_text(LOUD)
    return path


def test_list_tells_what_is_declared(served: CommandLine, file: Path) -> None:
    done = served.run("ensembles", "list", file)

    assert done.out.splitlines() == [
        "loud(name) -> text",
        "  greet: greet:prod(name=request.name)",
        "  shout: shout(text=greet.output)",
    ]
    [row] = json.loads(served.run("ensembles", "list", file, "--json").out)
    assert (row["inputs"], row["outputs"]) == (["name"], {"text": "shout.output"})
    assert row["steps"][1]["inputs"] == {"text": "greet.output"}


def test_check_and_infer_follow_the_file(served: CommandLine, file: Path) -> None:
    checked = served.run("ensembles", "check", file)
    asked = served.run("infer", "loud", "--text", "Ada", "--ensembles", file)

    assert (checked.code, checked.out) == (0, f"{file}: loud: sound, and served\n")
    assert asked.code == 0
    assert "text []: GOOD DAY, ADA" in asked.out
    assert "loud:greet=1 shout=1, queue " in asked.out


def test_check_tells_all_that_does_not_fit(served: CommandLine, file: Path) -> None:
    file.write_text(
        LOUD.replace('model = "greet"', 'model = "greets"').replace("inputs.text =", "inputs.words =")
        + LOUD.replace("[loud.", "[away.").replace('model = "shout"', 'model = "shout"\npool = "nowhere"')
    )

    done = served.run("ensembles", "check", file)

    assert done.code == 78
    first, second, third, last = done.err.splitlines()
    assert first.startswith(
        "loud: step 'greet' (pool 'default-pool'): no worker of its pool serves model 'greets:prod'"
    )
    assert second.endswith("model 'shout:1' takes the inputs text; the step gives words")
    assert third == "away: step 'shout': pool 'nowhere' has no worker"
    assert last == f"inference-worker: {file}: 3 things to mend"


def test_a_broken_file_is_told_with_its_line(shell: CommandLine) -> None:
    (shell.folder / "e.toml").write_text(LOUD.replace("request.name", "shout.output"))

    done = shell.run("ensembles", "list", "e.toml")

    assert done.code == 78
    assert "the steps go in a circle: " in done.error
