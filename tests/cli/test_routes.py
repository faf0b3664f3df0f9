"""`routes explain`: which rule takes a request."""

from __future__ import annotations

import json

import pytest

from tests.support.command import CommandLine

RULES = """
default = "default-pool"

[[route]]
model = "gpt*"
version = ">= 4"
pool = "gpu-pool-a"

[[route]]
model = "gpt*"
pool = "gpu-pool-b"
"""


@pytest.mark.parametrize(
    ("arguments", "pool"),
    [
        (("gpt-large", "--version", "4.1"), "gpu-pool-a"),
        (("gpt-large", "--version", "3"), "gpu-pool-b"),
        (("bert",), "default-pool"),
    ],
)
def test_the_rule_that_takes_a_request_is_told(shell: CommandLine, arguments: tuple[str, ...], pool: str) -> None:
    (shell.folder / "routes.toml").write_text(RULES)

    found = json.loads(shell.run("routes", "explain", *arguments, "--json").out)

    assert found["pool"] == pool


def test_a_person_is_told_the_pool_and_why_the_other_rules_do_not_take_it(shell: CommandLine) -> None:
    (shell.folder / "rules.toml").write_text(RULES)

    done = shell.run("routes", "explain", "gpt-large", "--version", "3", "--routes", "rules.toml")

    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "gpu-pool-b, by line 9: model gpt* -> gpu-pool-b\n"
        "  not by line 4 (model gpt*, version >= 4 -> gpu-pool-a): version '3' is not >= 4\n"
    )


def test_the_default_is_told_as_such(shell: CommandLine) -> None:
    (shell.folder / "routes.toml").write_text('default = "cpu-pool"\n')

    assert shell.run("routes", "explain", "bert").out == "cpu-pool, by the default\n"


def test_a_wrong_rule_is_told_with_its_line(shell: CommandLine) -> None:
    (shell.folder / "routes.toml").write_text(RULES.replace('">= 4"', '"> new"'))

    done = shell.run("routes", "explain", "gpt-large")

    assert done.code == 78
    assert done.error.startswith("inference-worker: routes.toml:6: only numbers have an order: 'new' can be compared")


def test_missing_rules_are_told(shell: CommandLine) -> None:
    done = shell.run("routes", "explain", "gpt-large")

    assert done.code == 2
    assert "Invalid value for '--routes': File 'routes.toml' does not exist (see" in done.error


@pytest.mark.parametrize(("option", "value"), [("--version", "9" * 5000), ("--version", "a b"), ("--tenant", "a/b")])
def test_what_no_request_could_ask_for_is_refused(shell: CommandLine, option: str, value: str) -> None:
    (shell.folder / "routes.toml").write_text(RULES)

    done = shell.run("routes", "explain", "gpt-large", option, value)

    assert done.code == 65
    assert f"{option[2:]} must be 1 to 128 letters, digits, '.', '_' or '-'" in done.error


def test_a_rule_with_a_number_of_thousands_of_digits_is_told_with_its_line(shell: CommandLine) -> None:
    (shell.folder / "routes.toml").write_text(RULES.replace(">= 4", f">= {'9' * 5000}"))

    done = shell.run("routes", "explain", "gpt-large", "--version", "3")

    assert done.code == 78
    assert "routes.toml:6: version must be conditions such as" in done.error
