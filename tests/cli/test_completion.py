"""`completion`: the shells' scripts, and what they complete."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.command import CommandLine


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_a_shells_script_is_printed(shell: CommandLine, shell_name: str) -> None:
    done = shell.run("completion", shell_name)

    assert (done.code, done.err) == (0, "")
    assert f"_INFERENCE_WORKER_COMPLETE={shell_name}_complete" in done.out


def test_bash_understands_its_script(shell: CommandLine) -> None:
    script = shell.run("completion", "bash").out

    checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("inference-worker wo", {"worker"}),
        ("inference-worker models l", {"list", "load"}),
        ("inference-worker infer m --pr", {"--priority"}),
        ("inference-worker infer m --priority ", {"high", "normal", "low"}),
    ],
)
def test_commands_options_and_choices_are_completed(shell: CommandLine, words: str, found: set[str]) -> None:
    position = str(len(words.split(" ")) - 1)

    done = shell.run(_INFERENCE_WORKER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=position)

    assert {line.partition(",")[2] for line in done.out.splitlines()} == found


def test_an_unknown_shell_is_told_with_those_that_are_known(shell: CommandLine) -> None:
    done = shell.run("completion", "tcsh")

    assert done.code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.error
