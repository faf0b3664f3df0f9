"""The one console command. A subcommand is a file here, loaded when it is called."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType

import click

from common.errors import ConfigError
from inference_worker.cli.config import load_config, name_variables
from inference_worker.cli.exits import report
from inference_worker.processes.exitcodes import Exit
from inference_worker.processes.title import set_title
from inference_worker.supervision.stopsignals import WISHES

PREFIX = "INFERENCE_WORKER"
CONFIG_FILE = "inference-worker.toml"

#: In the order in which `--help` lists them.
COMMANDS = {
    "demo": "Embed and score real sentences by real models, all in one.",
    "up": "Serve models: a broker, if none is given, and workers.",
    "worker": "Serve one pool's models from a broker that is there.",
    "gateway": "Answer HTTP and gRPC for the models of a broker.",
    "keys": "Make, list and revoke the gateway's API keys.",
    "infer": "Send one request and print the answer.",
    "score": "Score a whole data set: files in, files out, resumable.",
    "models": "List models, or load one and check it.",
    "routes": "Say which pool a request goes to, and why.",
    "ensembles": "Check models that are chained into one.",
    "limits": "Bound a pool and its tenants, and share it by weight.",
    "dead": "Look at dead letters, put them back, or drop them.",
    "pools": "Remove a pool that nobody serves any more.",
    "status": "Show pools, backlog, workers and rates.",
    "health": "Say whether this host's worker is ready, for probes.",
    "top": "Watch pools, workers and models, live.",
    "trace": "Show one request's life.",
    "doctor": "Check broker, host, pools and models, and say what to do.",
    "logs": "Change what running workers log.",
    "profile": "See what a worker does, in a browser.",
    "completion": "Print the completion script of a shell.",
}


@dataclass(slots=True)
class Session:
    """What a command's options say of the whole run."""

    debug: bool = False


class Commands(click.Group):
    """Imports a subcommand's file only when it is needed: `infer` must not wait for what `up` imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            command: click.Command = import_module(f"inference_worker.cli.{cmd_name}").command
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"`{cmd_name}` needs the package '{error.name}', not installed: pip install 'inference-worker[all]'"
            ) from error
        name_variables(command, PREFIX)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"Each option can also be set by {PREFIX}_<COMMAND>_<OPTION>, or in {CONFIG_FILE} in the table [<command>]: "
    "a flag goes before the environment, the environment before the file.",
)
@click.version_option(package_name="inference-worker", message="inference-worker %(version)s")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar=f"{PREFIX}_CONFIG",
    help=f"Options as TOML, one table for each command. [default: {CONFIG_FILE} where it exists]",
)
@click.option("--debug", is_flag=True, envvar=f"{PREFIX}_DEBUG", help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, config: Path | None, debug: bool) -> None:
    """Serve machine-learning models through Redis, in micro-batches, one process per device.

    \b
    Example:
      inference-worker up mymodel.py
      inference-worker infer mymodel --text "hello"
    """
    ctx.ensure_object(Session).debug = debug
    # In ps from now on, instead of the command line and what secrets it may hold.
    set_title(str(ctx.invoked_subcommand))
    path = config or Path(CONFIG_FILE)
    if config or path.is_file():
        ctx.default_map = load_config(path, ctx)


def main() -> None:
    """Run the command; an error is one line on standard error and an exit code that means something."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _leave)
    session = Session()
    try:
        code = cli.main(prog_name="inference-worker", standalone_mode=False, obj=session)
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except Exception as error:
        code = report(error, session.debug)
    sys.exit(code if isinstance(code, int) else 0)


def _leave(number: int, frame: FrameType | None) -> None:
    """Unwind instead of dying on the spot, so that whatever a command has started and written is removed.

    An echo of the signal must not break into that.
    """
    if not WISHES.is_new():
        return
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
