"""How an error ends a command: one line on standard error, and an exit code that means something to a script."""

from __future__ import annotations

import os
import traceback

import click
from click.core import ParameterSource

from common.errors import (
    AccessDenied,
    BrokerRefuses,
    BrokerUnavailable,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    DiskFull,
    InferenceError,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    Overloaded,
    PayloadTooLarge,
    RepositoryUnavailable,
)
from common.text import printable
from inference_worker.processes.exitcodes import Exit

_OURS = ("common", "gateway", "inference_worker")
CODES: dict[type[InferenceError], Exit] = {
    InvalidRequest: Exit.DATA,
    PayloadTooLarge: Exit.DATA,
    ModelNotFound: Exit.NOT_FOUND,
    ModelUnavailable: Exit.UNAVAILABLE,
    BrokerUnavailable: Exit.UNAVAILABLE,
    BrokerRefuses: Exit.UNAVAILABLE,
    RepositoryUnavailable: Exit.UNAVAILABLE,
    AccessDenied: Exit.CONFIG,
    DeadlineExceeded: Exit.LATER,
    DiskFull: Exit.LATER,
    Overloaded: Exit.LATER,
    ConfigError: Exit.CONFIG,
    Cancelled: Exit.INTERRUPTED,
}


def report(error: Exception, debug: bool) -> int:
    """Say what went wrong, with `debug` where; the exit code."""
    if isinstance(error, click.Abort):
        if not isinstance(error.__cause__, EOFError):
            return Exit.INTERRUPTED
        # click takes any end of a file for a Ctrl-D.
        error = error.__cause__
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
        return CODES.get(type(error), Exit.FAILED)
    if _missing_package(error):
        return Exit.CONFIG
    return Exit.FILE if isinstance(error, OSError) else Exit.BUG


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
        case ModuleNotFoundError() if name := _missing_package(error):
            return f"this needs the package '{name}', not installed: pip install 'inference-worker[all]'"
    return f"{type(error).__name__}: {error}. This is a bug; `inference-worker --debug ...` shows where"


def _missing_package(error: Exception) -> str | None:
    """The package of an extra that is not installed; None where one of our own modules is missing, or nothing."""
    name = str(error.name).partition(".")[0] if isinstance(error, ModuleNotFoundError) else None
    return None if name in _OURS else name


def _origin(error: click.UsageError) -> str:
    """Where a wrong value comes from, if not from the command line."""
    parameter = getattr(error, "param", None)
    if error.ctx is None or parameter is None:
        return ""
    source = error.ctx.get_parameter_source(parameter.name)
    if source is ParameterSource.ENVIRONMENT:
        names = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar
        return f", set by {next(name for name in names if os.environ.get(name))}"
    return ", set in the configuration file" if source is ParameterSource.DEFAULT_MAP else ""


def _hint(error: click.UsageError) -> str:
    return f" (see {error.ctx.command_path} --help)" if error.ctx else ""


def _one_line(text: str) -> str:
    return printable("; ".join(line for line in map(str.strip, text.splitlines()) if line))
