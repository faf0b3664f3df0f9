"""`models`: what is declared, what is served, and whether it works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import MODELS, ROOT, CommandLine

SENTIMENT = ROOT / "examples" / "models" / "sentiment"


def test_list_with_a_path_tells_what_is_declared_there(shell: CommandLine) -> None:
    done = shell.run("models", "list", MODELS)

    assert done.code == 0
    assert done.out.splitlines() == [
        "greet:1 (prod)  pool default-pool  (name: BYTES[]) -> (any outputs)",
        "greet:2 (canary)  pool default-pool  (name: BYTES[]) -> (any outputs)",
        "root:1  pool default-pool  (x: FP32[]) -> (any outputs)",
        "scaled:1  pool default-pool  (x: FP32[-1]) -> (any outputs)",
        "shout:1  pool default-pool  (text: BYTES[]) -> (any outputs)",
        "span:1  pool default-pool  (x: FP32[-1]) -> (least: FP32[], most: FP32[])",
        "waits:1  pool default-pool  (gate: BYTES[]) -> (any outputs)",
    ]


def test_list_tells_what_is_served_in_the_same_form(served: CommandLine) -> None:
    declared = served.run("models", "list", MODELS)
    there = served.run("models", "list")
    as_json = json.loads(served.run("models", "list", "--json").out)

    assert there.out == declared.out
    assert as_json[-2] == {
        "name": "span",
        "version": "1",
        "aliases": [],
        "pool": "default-pool",
        "inputs": ["x: FP32[-1]"],
        "outputs": ["least: FP32[]", "most: FP32[]"],
    }


def test_check_runs_a_models_sample_and_prints_times_and_memory(shell: CommandLine) -> None:
    done = shell.run("models", "check", SENTIMENT)

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("sentiment:1: loaded in ")
    assert " ms for 16 rows, " in done.out
    assert done.out.endswith(
        "MiB; gives compound float32[], positive float32[], neutral float32[], negative float32[]\n"
    )


def test_check_tells_the_same_to_machines(shell: CommandLine) -> None:
    found = json.loads(shell.run("models", "check", MODELS, "--model", "span", "--json").out)

    assert (found["model"], found["rows"]) == ("span:1", 64)
    assert found["outputs"] == {"least": "float32[]", "most": "float32[]"}
    assert 0 < found["run_ms"] < 1000


@pytest.mark.parametrize(
    ("code", "exit_code", "told"),
    [
        ("    return x.no_such_thing\n", 1, "AttributeError: 'numpy.ndarray' object has no attribute 'no_such_thing'"),
        ("    return x[:0]\n", 1, "returned 0 rows of 'output' for a batch of 1"),
        ("  return (\n", 78, "m.py:6 cannot be imported: SyntaxError: '(' was never closed"),
    ],
)
def test_check_tells_what_is_wrong_with_a_model(
    shell: CommandLine, tmp_path: Path, code: str, exit_code: int, told: str
) -> None:
    (tmp_path / "m.py").write_text(
        "from inference_worker import model\n\n\n@model(inputs={'x': 'FP32[]'})\ndef m(x):\n" + code
    )

    done = shell.run("models", "check", "m.py")

    assert done.code == exit_code
    assert told in done.error


def test_two_versions_with_one_alias_are_told(shell: CommandLine) -> None:
    for version in ("1", "2"):
        folder = shell.folder / "m" / version
        folder.mkdir(parents=True)
        (folder / "model.toml").write_text('backend = "python"\naliases = ["prod"]\n[python]\ncode = "m.py:run"\n')

    done = shell.run("models", "list", "m")

    assert done.code == 78
    assert done.error == (
        "inference-worker: m: versions '1' and '2' of model 'm' both have the alias 'prod'; it must lead to one of them"
    )


def test_a_model_that_is_not_there_is_told_with_those_that_are(shell: CommandLine) -> None:
    done = shell.run("models", "check", SENTIMENT, "--model", "sentimental")

    assert done.code == 2
    assert "Invalid value for --model: there is sentiment; got 'sentimental'" in done.error
