"""The pages of docs/reference that are made from the code: `python -m tests.site` writes them, a test compares them."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from inspect import cleandoc
from pathlib import Path

import click

from common import errors
from common.errors import WIRE_ERRORS, InferenceError
from gateway.http.status import STATUS
from inference_worker.cli import CONFIG_FILE, cli
from inference_worker.cli.exits import CODES
from inference_worker.processes.exitcodes import Exit

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
_MADE = "<!-- Made from the code by `make docs`: change it there. -->"


def pages() -> dict[Path, str]:
    """Each page's text."""
    return {REFERENCE / "cli.md": "\n".join(_commands()), REFERENCE / "errors.md": "\n".join(_errors())}


def _commands() -> Iterator[str]:
    yield from (_MADE, "", "# Commands", "")
    yield f"Each option is a flag, the variable beside it, or a line in `{CONFIG_FILE}`, in the table of its"
    yield "command: a flag goes before the environment, the environment before the file"
    yield "([configuration](configuration.md)). An error is one line on standard error; the exit codes are those of"
    yield "[errors](errors.md#exit-codes)."
    with click.Context(cli, info_name="inference-worker") as context:
        yield from _command(cli, context)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """It, and what is under it."""
    if context.parent is not None:
        yield from ("", f"{'##' if context.parent.parent is None else '###'} {_path(context)}")
    yield from ("", "    " + " ".join((_path(context), *command.collect_usage_pieces(context))), "")
    yield from _paragraphs(command.help or "")
    yield from _options(command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                with click.Context(found, info_name=name, parent=context) as inner:
                    yield from _command(found, inner)


def _path(context: click.Context) -> str:
    return context.command_path


def _paragraphs(text: str) -> Iterator[str]:
    """A docstring; what click is told not to wrap, which begins with a backspace, is an example."""
    for paragraph in cleandoc(text).split("\n\n"):
        lines = paragraph.splitlines()
        if lines[0].strip() != "\b":
            yield from (escape(" ".join(lines), quote=False), "")
            continue
        yield from (lines[1], "")
        yield from (f"    {line.strip()}" for line in lines[2:])
        yield ""


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if not options:
        return
    yield from ("| option | variable | |", "| --- | --- | --- |")
    for option in options:
        record = option.get_help_record(context)
        assert record is not None
        flags, told = record
        envvar = option.envvar
        variables = [envvar] if isinstance(envvar, str) else list(envvar or ())
        cells = (f"`{flags}`", ", ".join(f"`{one}`" for one in variables), escape(told, quote=False))
        yield "| " + " | ".join(one.replace("|", "\\|") for one in cells) + " |"


def _errors() -> Iterator[str]:
    yield from (_MADE, "", "# Errors", "")
    yield "Everything that this project raises on purpose is an `InferenceError` with a `code` that stays what it is, a"
    yield "`message` of one line that may change, and `retryable`: whether the same request may go well later. Codes"
    yield "that are on the wire reach clients of any language; take one that you do not know for `internal_error`."
    yield from ("", "| code | on the wire | retryable | HTTP | Python | when |", "| --- " * 6 + "|")
    for kind in _kinds():
        cells = (
            f"`{kind.code}`",
            "yes" if kind.code in WIRE_ERRORS else "no",
            "yes" if kind.retryable else "no",
            str(STATUS.get(kind.code, "–")),
            f"`{kind.__name__}`",
            escape(" ".join(cleandoc(kind.__doc__ or "").split("\n\n")[0].split()), quote=False),
        )
        yield "| " + " | ".join(cells) + " |"
    yield from ("", "## Exit codes", "")
    yield "Of every command; those from 64 on are of sysexits.h, so that a script can tell them apart."
    yield from ("", "| code | when |", "| --- | --- |")
    named = {code: sorted(f"`{kind.__name__}`" for kind, its in CODES.items() if its is code) for code in Exit}
    told = {int(code): ", ".join(names) or _EXITS[code] for code, names in named.items()}
    for number, when in sorted({0: "it went well", 2: "the command line is wrong", **told}.items()):
        yield f"| {number} | {when} |"
    yield "| 128 + N | it was ended by signal N |"


#: Those that no error of ours stands for.
_EXITS = {
    Exit.FAILED: "any other error: the model or a worker did something wrong; of `health`: it is not ready",
    Exit.ORPHANED: "of a worker process: its supervisor is gone",
    Exit.BUG: "a bug: `--debug` shows where",
    Exit.FILE: "a file cannot be read or written",
}


def _kinds() -> list[type[InferenceError]]:
    """In the order of the module's own tree."""
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, InferenceError)]
    return [one for one in found if one is not InferenceError]
