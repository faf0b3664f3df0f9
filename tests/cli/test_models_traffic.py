"""`models alias` and `models split`: which version answers, set and shown at the prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.command import CommandLine
from tests.support.waiting import wait_until


@pytest.fixture
def operator(served: CommandLine) -> Iterator[CommandLine]:
    """A shell beside a running `up` that serves greet:1 (prod) and greet:2 (canary); at the end nothing is steered."""
    yield served
    served.run("models", "alias", "greet", "prod=", "canary=", "next=", "gone=")
    served.run("models", "split", "greet", "--clear")


def listed(shell: CommandLine) -> list[str]:
    lines = shell.run("models", "list").out.splitlines()
    return [line.partition("  pool ")[0] for line in lines if line.startswith("greet")]


def greeting(shell: CommandLine, *more: str) -> str:
    return shell.run("infer", "greet", "--text", "Ada", *more).out.partition("output []: ")[2].partition("\n")[0]


def test_an_alias_is_moved_and_removed(operator: CommandLine) -> None:
    moved = operator.run("models", "alias", "greet", "prod=2", "next=1")

    assert (moved.code, moved.out) == (0, "greet in pool default-pool: next -> 1; prod -> 2\n")
    assert listed(operator) == ["greet:1 (next)", "greet:2 (canary, prod)"]
    assert greeting(operator, "--version", "prod") == "Hi Ada"

    removed = operator.run("models", "alias", "greet", "prod=", "next=")

    assert removed.out == "greet in pool default-pool: no aliases, no split\n"
    assert listed(operator) == ["greet:1 (prod)", "greet:2 (canary)"]
    # The worker follows within two seconds.
    wait_until(lambda: greeting(operator, "--version", "prod") == "Good day, Ada", "the old version answers")


def test_a_split_is_set_shown_and_ended(operator: CommandLine) -> None:
    assert greeting(operator) == "Hi Ada"

    done = operator.run("models", "split", "greet", "prod=100", "2=0")

    assert done.out == "greet in pool default-pool: prod 100 %, 2 0 % by tenant\n"
    assert greeting(operator) == "Good day, Ada"
    assert listed(operator) == ["greet:1 (prod)  100 %", "greet:2 (canary)  0 %"]
    assert "  traffic   greet: prod 100 %, 2 0 % by tenant\n" in operator.run("status").out
    shown = json.loads(operator.run("models", "list", "--json").out)
    assert [row["share"] for row in shown if row["name"] == "greet"] == [1.0, 0.0]
    assert operator.run("models", "split", "greet").out == done.out

    assert operator.run("models", "split", "greet", "--clear").out.endswith(": no aliases, no split\n")
    assert greeting(operator) == "Hi Ada"


def test_one_affinity_stays_with_one_version(operator: CommandLine) -> None:
    operator.run("models", "split", "greet", "1=50", "2=50", "--by", "key")

    greetings = {user: greeting(operator, "--affinity", user) for user in ("a", "b", "c")}

    assert {user: greeting(operator, "--affinity", user) for user in greetings} == greetings


def test_what_nobody_serves_is_refused_unless_forced(operator: CommandLine) -> None:
    alias = operator.run("models", "alias", "greet", "gone=9")
    split = operator.run("models", "split", "greet", "1=50", "9=50")

    assert (alias.code, split.code) == (2, 2)
    assert "pool 'default-pool' serves no version '9' of model 'greet'; there is 1, 2." in alias.error
    assert "serves no version '9'" in split.error
    forced = operator.run("models", "split", "greet", "1=50", "9=50", "--force")
    assert forced.code == 0
    assert "(not served: 9)" in operator.run("status").out
    assert greeting(operator) == "Good day, Ada"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("alias", "greet", "1=2"), "'1' is a version of model 'greet': an alias needs a name of its own"),
        (("alias", "greet", "prod"), "must be LABEL=VERSION; got 'prod'"),
        (("alias", "greet", "a b=1"), "LABEL must be 1 to 128 letters"),
        (("split", "greet", "1=many"), "a share is VERSION=WEIGHT, such as 2=5; got '1=many'"),
        (("split", "greet", "1=1", "1=2"), "'1' is given twice"),
        (("alias", "greet", "prod=1", "prod="), "'prod' is given twice"),
        (("split", "greet", "1=1", "--clear"), "give shares or --clear, not both"),
        (("split", "greet", "1=1", "--by", "luck"), "'luck' is not one of 'tenant', 'key', 'request'"),
        (("split", "nobody", "1=1"), "no worker serves model 'nobody' (there is greet, "),
    ],
)
def test_what_makes_no_sense_is_told(operator: CommandLine, arguments: tuple[str, ...], told: str) -> None:
    done = operator.run("models", *arguments)

    assert done.code == 2
    assert told in done.error


def test_a_weight_below_zero_is_told(operator: CommandLine) -> None:
    done = operator.run("models", "split", "greet", "1=-1")

    assert done.code == 78
    assert "the weight of version '1' must be a number from 0 to 1000000000; got -1.0" in done.error
