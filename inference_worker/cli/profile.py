"""inference-worker profile WORKER"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.errors import ConfigError
from common.orders import MAX_PROFILE_S, PROFILE, Order
from common.text import describe, printable
from inference_worker.cli.options import FiniteRange, answering, broker_option
from inference_worker.processes.profiling import PREFIX, file_name
from inference_worker.supervision.host import host_name

if TYPE_CHECKING:
    from gateway.admin.pools import Admin, WorkerStatus

PY_SPY, TORCH = KINDS = ("py-spy", "torch")
#: Beyond the profile itself: writing it down, and the answer.
PATIENCE_S = 60.0
_OPEN = {PY_SPY: "https://www.speedscope.app", TORCH: "https://ui.perfetto.dev"}


@click.command("profile")
@click.argument("worker")
@click.option(
    "--seconds",
    type=FiniteRange(min=0.1, max=MAX_PROFILE_S),
    default=10.0,
    show_default=True,
    help="For how long.",
)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default=PY_SPY,
    show_default=True,
    help="py-spy: where Python's time goes, on this host. torch: operations, and the GPU's, on any host.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="[default: WORKER-KIND.json here, for torch .json.gz]",
)
@broker_option
def command(worker: str, seconds: float, kind: str, output: Path | None, broker: str) -> None:
    """See what WORKER does, as `status` names it, while it goes on serving.

    The file opens in a browser: speedscope for py-spy, Perfetto for torch.

    \b
    Example:
      inference-worker profile myhost-4711-0-0 --seconds 5
      inference-worker profile myhost-4711-0-0 --kind torch
    """
    from gateway.admin.manage import Manager
    from gateway.admin.pools import Admin

    client = answering(broker)
    pool, found = _find(Admin(client), worker)
    suffix = ".json" if kind == PY_SPY else ".json.gz"
    target: Path | str = output or Path(f"{found.name}-{kind}{suffix}")
    click.echo(f"{found.name} is being watched for {seconds:g} s", err=True)
    if kind == PY_SPY:
        _py_spy(_pid_here(found), seconds, Path(target))
    else:
        order = Order("", PROFILE, "", worker=found.name, seconds=seconds)
        [report] = Manager(client).tell(pool, order, seconds + PATIENCE_S)
        if not report.ok:
            raise ConfigError(f"worker {found.name}: {report.error}")
        target = _brought(found, Path(report.note), Path(target))
    click.echo(f"{target}: open it at {_OPEN[kind]}")


def _find(admin: Admin, worker: str) -> tuple[str, WorkerStatus]:
    there = [(pool.name, one) for pool in admin.snapshot().pools for one in pool.workers if one.live]
    found = [(pool, one) for pool, one in there if one.name == worker]
    if found:
        return found[0]
    names = ", ".join(one.name for _, one in there) or "none runs"
    raise ConfigError(f"there is no worker '{printable(worker)}': {names}")


def _pid_here(worker: WorkerStatus) -> int:
    host, pid = worker.about.get("host"), worker.about.get("pid")
    if host != host_name():
        raise ConfigError(f"{worker.name} runs on {host}: run this there, or with --kind torch")
    if not isinstance(pid, int) or pid <= 0:
        raise ConfigError(f"{worker.name} has no process just now")
    return pid


def _py_spy(pid: int, seconds: float, target: Path) -> None:
    program = shutil.which("py-spy", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    if program is None:
        raise ConfigError("this needs the program py-spy, not installed: pip install 'inference-worker[profile]'")
    command = [program, "record", "--pid", str(pid), "--format", "speedscope", "--output", str(target)]
    # It takes whole seconds.
    command += ["--duration", str(max(1, round(seconds))), "--threads", "--nonblocking"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not target.exists():
        last = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise ConfigError(
            f"py-spy cannot look into process {pid}: {printable(last[0])}; run this as root or as the worker's user "
            "with kernel.yama.ptrace_scope=0, in a container with SYS_PTRACE, or use --kind torch"
        )


def _is_a_profile(written: Path, worker: WorkerStatus) -> bool:
    """Whether a profiler of that worker has made this file: where it is, a worker says, and that may be anywhere."""
    folder = written.parent
    # Not by its place: the worker's TMPDIR may be another than ours.
    made = folder.is_absolute() and folder.name.startswith(PREFIX)
    named = written.name == file_name(worker.name)
    return made and named and written.is_file() and not (folder.is_symlink() or written.is_symlink())


def _brought(worker: WorkerStatus, written: Path, target: Path) -> str:
    """Where the worker's file is now: here, or on its host."""
    host = worker.about.get("host")
    if host != host_name() or not _is_a_profile(written, worker):
        return printable(f"{host}:{written}")
    shutil.move(written, target)
    try:
        written.parent.rmdir()
    except OSError as error:
        click.echo(f"{written.parent} stays: {describe(error)}", err=True)
    return str(target)
