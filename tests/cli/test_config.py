"""Where an option's value comes from: flag, environment, configuration file, default, in this order."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from common.embedded import free_port
from inference_worker.cli import COMMANDS, cli
from tests.support.command import CommandLine

EXPLAIN = ("routes", "explain", "bert")
VARIABLE = "INFERENCE_WORKER_ROUTES_EXPLAIN_ROUTES"


@pytest.fixture
def rules(shell: CommandLine) -> CommandLine:
    """A folder with one file of rules for each place that can name one: each leads to a pool of its own name."""
    for name in ("flag", "environment", "file", "routes"):
        (shell.folder / f"{name}.toml").write_text(f'default = "{name}"\n')
    return shell


def pool(shell: CommandLine, *arguments: str, **environment: str) -> str:
    done = shell.run(*arguments, **environment)
    assert (done.code, done.err) == (0, "")
    return done.out.partition(",")[0]


def configure(shell: CommandLine, text: str, name: str = "inference-worker.toml") -> None:
    (shell.folder / name).write_text(text)


def test_a_flag_goes_before_the_environment_that_before_the_file_and_that_before_the_default(
    rules: CommandLine,
) -> None:
    assert pool(rules, *EXPLAIN) == "routes"

    configure(rules, '[routes.explain]\nroutes = "file.toml"\n')
    assert pool(rules, *EXPLAIN) == "file"
    assert pool(rules, *EXPLAIN, **{VARIABLE: "environment.toml"}) == "environment"
    assert pool(rules, *EXPLAIN, "--routes", "flag.toml", **{VARIABLE: "environment.toml"}) == "flag"


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_the_configuration_file_may_be_elsewhere(rules: CommandLine, way: str) -> None:
    configure(rules, '[routes.explain]\nroutes = "file.toml"\n', "settings.toml")
    flag = ("--config", "settings.toml") if way == "flag" else ()
    variable = {"INFERENCE_WORKER_CONFIG": "settings.toml"} if way == "environment" else {}

    assert pool(rules, *flag, *EXPLAIN, **variable) == "file"


def test_an_option_is_named_as_its_flag_is(shell: CommandLine, redis_url: str) -> None:
    # Given --lease, --max-deliveries and --reply-ttl out of range, each in the file
    for name, flag in (("lease", "--lease"), ("max-deliveries", "--max-deliveries"), ("reply_ttl", "--reply-ttl")):
        configure(shell, f"[worker]\n{name} = 0\n")
        # When a worker is started
        done = shell.run("worker", ".", INFERENCE_WORKER_BROKER=redis_url)
        # Then the file's value is the one that is refused
        assert done.code == 2
        assert f"Invalid value for '{flag}': 0" in done.error
        assert ", set in the configuration file (see inference-worker worker --help)" in done.error


def test_a_commands_own_variable_goes_before_the_one_of_all_commands(shell: CommandLine, redis_url: str) -> None:
    nowhere = {"INFERENCE_WORKER_BROKER": f"redis://127.0.0.1:{free_port()}"}

    assert shell.run("status", **nowhere).code == 69
    assert shell.run("status", **nowhere, INFERENCE_WORKER_STATUS_BROKER=redis_url).code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_of_each_command_has_the_variable_that_the_help_promises(command: str) -> None:
    found = cli.get_command(click.Context(cli), command)

    assert found is not None
    for place, one in _with_subcommands(command, found):
        options = [each for each in one.params if isinstance(each, click.Option)]
        for option in options:
            flag = max(option.opts, key=len).removeprefix("--")
            promised = f"INFERENCE_WORKER_{place}_{flag}".replace("-", "_").upper()
            assert promised in (option.envvar or ())


def _with_subcommands(place: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield place, command
    if isinstance(command, click.Group):
        for name, subcommand in command.commands.items():
            yield from _with_subcommands(f"{place}_{name}", subcommand)


def test_a_wrong_value_in_the_environment_is_told_with_its_variable(shell: CommandLine) -> None:
    done = shell.run("infer", "m", "--text", "x", INFERENCE_WORKER_INFER_TIMEOUT="soon")

    assert done.code == 2
    assert "'soon' is not a valid float range, set by INFERENCE_WORKER_INFER_TIMEOUT (see" in done.error


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[worker]\ndevise = "cpu"\n', ":2: worker.devise is unknown; did you mean 'device'?"),
        ("[worker]\n[models.check]\nthread = 2\n", ":3: models.check.thread is unknown; did you mean 'threads'?"),
        ("[wroker]\n", ":1: wroker is unknown; did you mean 'worker'?"),
        ("[status]\nzzz = 1\n", ":2: status.zzz is unknown; known here: "),
        ("debug = true\n", ":1: debug is unknown"),
        ("worker = 3\n", ":1: worker must be the table [worker], of the options of that command"),
        ("[worker\n", ": Expected ']'"),
    ],
)
def test_what_the_file_says_wrongly_is_told_with_its_line(shell: CommandLine, text: str, told: str) -> None:
    configure(shell, text)

    done = shell.run(*EXPLAIN)

    assert done.code == 78
    assert done.error.startswith("inference-worker: inference-worker.toml")
    assert told in done.error


def test_a_configuration_file_that_is_named_must_be_there(shell: CommandLine) -> None:
    done = shell.run("--config", "missing.toml", *EXPLAIN)

    assert done.code == 2
    assert "Invalid value for '--config': File 'missing.toml' does not exist" in done.error
