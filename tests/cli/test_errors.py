"""How a command fails: one line on standard error, an exit code, and a traceback only for who asks for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import click
import pytest

from common.errors import WIRE_ERRORS, ConfigError, InferenceError
from inference_worker.cli import COMMANDS, cli
from inference_worker.cli.exits import exit_code, report
from tests.support.command import COMMAND, CommandLine

NOBODY = ("infer", "nobody", "--text", "x")


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """(name, command) of every command that does something."""
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    ctx = click.Context(command)
    for name in command.list_commands(ctx):
        inner = command.get_command(ctx, name)
        assert inner is not None
        yield from leaves(inner, (*path, name))


def test_a_traceback_is_shown_to_who_asks_for_it_and_the_exit_code_is_the_same(served: CommandLine) -> None:
    plain = served.run(*NOBODY)
    flag = served.run("--debug", *NOBODY)
    variable = served.run(*NOBODY, INFERENCE_WORKER_DEBUG="1")

    assert plain.error.startswith("inference-worker: no model 'nobody' is served here; there is ")
    for done in (flag, variable):
        assert done.err.startswith("Traceback (most recent call last):")
        assert done.err.splitlines()[-1].startswith("common.errors.ModelNotFound: no model 'nobody' is served here")
    assert plain.code == flag.code == variable.code == 66


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("inferr",), "No such command 'inferr'"),
        (("infer",), "Missing argument 'MODEL' (see inference-worker infer --help)"),
        (("infer", "m", "--txt", "x"), "No such option"),
        (("infer", "m", "--priority", "urgent"), "'urgent' is not one of 'high', 'normal', 'low'"),
        (("infer", "m", "--timeout", "0"), "0.0 is not in the range x>=0.001"),
        (("worker",), "Missing argument 'PATH...' (see inference-worker worker --help)"),
        (("worker", "missing"), "Path 'missing' does not exist"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_says_where_to_read_on(
    shell: CommandLine, arguments: tuple[str, ...], told: str
) -> None:
    done = shell.run(*arguments)

    assert (done.code, done.out) == (2, "")
    assert told in done.error
    assert done.error.endswith("--help)")


def test_without_a_command_the_help_is_shown(shell: CommandLine) -> None:
    done = shell.run()

    assert done.code == 2
    assert all(f"  {name}  " in done.err for name in COMMANDS if len(name) == 10)
    assert "Traceback" not in done.err


@pytest.mark.parametrize("url", ["http://x", "redis://:secret@host:port", "secret"])
def test_a_malformed_broker_url_is_told_without_what_may_be_a_password(shell: CommandLine, url: str) -> None:
    done = shell.run(*NOBODY, "--broker", url)

    assert done.code == 78
    assert done.error.startswith("inference-worker: broker URL '")
    assert "secret" not in done.error or url == "secret"


def test_a_reader_that_goes_away_is_no_error(served: CommandLine) -> None:
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
        reader.wait()
        done = subprocess.run(
            [*COMMAND, "models", "list"],
            cwd=served.folder,
            env=served.environment({}),
            stdout=reader.stdin,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert done.stderr == b""


@pytest.mark.parametrize(("name", "command"), [*leaves(cli)])
def test_each_command_explains_itself_with_an_example(name: str, command: click.Command) -> None:
    text = command.get_help(click.Context(command, info_name=name))

    assert "Example:\n" in text
    assert f"inference-worker {name}" in text


@pytest.mark.parametrize("error", [*WIRE_ERRORS.values(), ConfigError])
def test_every_error_has_an_exit_code_that_is_no_success(error: type[InferenceError]) -> None:
    assert exit_code(error("why")) in (1, 65, 66, 69, 75, 78, 130)


def test_the_end_of_a_file_is_no_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    # Given a command in which a file ends early, which click takes for a Ctrl-D
    @click.command()
    def command() -> None:
        raise EOFError("no data left in x.bin")

    with pytest.raises(click.Abort) as caught:
        command.main([], standalone_mode=False)

    assert report(caught.value, debug=False) == 70
    assert "EOFError: no data left in x.bin. This is a bug" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigError("redis-server ended at once; its last words:\n a\n\n b"), 78, "its last words:; a; b"),
        (FileNotFoundError(2, "No such file or directory", "x.npy"), 74, "x.npy: No such file or directory"),
        (
            ModuleNotFoundError("No module named 'rich.console'", name="rich.console"),
            78,
            "this needs the package 'rich', not installed: pip install 'inference-worker[all]'",
        ),
        (
            ModuleNotFoundError("No module named 'common.x'", name="common.x"),
            70,
            "No module named 'common.x'. This is a bug; `inference-worker --debug ...` shows where",
        ),
        (KeyError("x"), 70, "KeyError: 'x'. This is a bug; `inference-worker --debug ...` shows where"),
    ],
)
def test_whatever_is_raised_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, told: str
) -> None:
    assert report(error, debug=False) == code

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("inference-worker: ")
    assert line.endswith(told)
