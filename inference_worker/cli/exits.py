"""How an error ends a command: one line on standard error, and an exit code that means something to a script."""

from __future__ import annotations

import traceback

import click
from click.core import ParameterSource

from common.errors import (
    BrokerUnavailable,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    InferenceError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
)

#: 2 is click's for a wrong command line; 64 and up follow sysexits.h.
CODES: dict[type[InferenceError], int] = {
    InvalidRequest: 65,
    PayloadTooLarge: 65,
    ModelNotFound: 66,
    BrokerUnavailable: 69,
    DeadlineExceeded: 75,
    Overloaded: 75,
    ConfigError: 78,
    Cancelled: 130,
}
EXIT_BUG = 70
EXIT_FILE = 74
EXIT_INTERRUPTED = 130


def report(error: Exception, debug: bool) -> int:
    """Say what went wrong, with `debug` where; the exit code."""
    if isinstance(error, click.Abort):
        return EXIT_INTERRUPTED
    if debug:
        traceback.print_exception(error)
    elif isinstance(error, click.UsageError) and "\n" in error.message:
        # A group that was called without a command tells its whole help.
        error.show()
    else:
        click.secho(f"inference-worker: {_one_line(_message(error))}", fg="red", err=True)
    return exit_code(error)


def exit_code(error: Exception) -> int:
    """1 for what the model or a worker did wrong; see CODES for the rest."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, InferenceError):
        return CODES.get(type(error), 1)
    return EXIT_FILE if isinstance(error, OSError) else EXIT_BUG


def _message(error: Exception) -> str:
    match error:
        case click.UsageError():
            return f"{error.format_message().rstrip('.')}{_origin(error)}{_hint(error)}"
        case click.ClickException():
            return error.format_message()
        case InferenceError():
            return str(error)
        case OSError(filename=str(file), strerror=str(reason)):
            return f"{file}: {reason}"
        case OSError():
            return str(error)
    return f"{type(error).__name__}: {error}. This is a bug; `inference-worker --debug ...` shows where"


def _origin(error: click.UsageError) -> str:
    """Where a wrong value comes from, if not from the command line."""
    parameter = getattr(error, "param", None)
    if error.ctx is None or parameter is None:
        return ""
    source = error.ctx.get_parameter_source(parameter.name)
    if source is ParameterSource.ENVIRONMENT:
        return f", set by {parameter.envvar}"
    return ", set in the configuration file" if source is ParameterSource.DEFAULT_MAP else ""


def _hint(error: click.UsageError) -> str:
    return f" (see {error.ctx.command_path} --help)" if error.ctx else ""


def _one_line(text: str) -> str:
    return "; ".join(line for line in map(str.strip, text.splitlines()) if line)
