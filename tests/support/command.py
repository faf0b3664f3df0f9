"""The command line as a user has it: real processes, with a folder, a TMPDIR and an environment of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
#: Small models to serve.
MODELS = ROOT / "tests" / "support" / "models" / "commands.py"
COMMAND = (sys.executable, "-m", "inference_worker.cli")
#: All that a command starts inherits this variable, and so can be found.
MARKER = "INFERENCE_WORKER_TEST_MARKER"
READY_S = 30.0
END_S = 15.0
RUN_S = 100.0


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Its one line on standard error."""
        [line] = self.err.splitlines()
        return line


class Running:
    """A command that runs. Its output goes to a file, so that it never waits for a reader."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self.process = process
        self._output = output
        self._kept: str | None = None

    @property
    def printed(self) -> str:
        """Standard output and standard error so far; once the block is left, all of it."""
        return os.pread(self._output.fileno(), 1 << 20, 0).decode() if self._kept is None else self._kept

    def keep(self) -> None:
        """It has ended, and its output's file goes away."""
        self._kept = self.printed

    def wait_for(self, text: str) -> None:
        """Until it has printed `text`."""
        wait_until(lambda: text in self.printed or self.process.poll() is not None, f"it prints '{text}'", READY_S)
        assert text in self.printed, f"it ended with {self.process.poll()}"

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(END_S)


class CommandLine:
    """One user's shell. `folder` is where commands run, `temporary` their TMPDIR, both empty at first."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.folder = folder
        self.temporary = temporary
        self.marker = uuid4().hex

    def run(self, *arguments: str | Path, stdin: str = "", **environment: str) -> Done:
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def running(self, *arguments: str | Path, **environment: str) -> Iterator[Running]:
        """A command that is killed at the block's end, if it still runs then."""
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [*COMMAND, *map(str, arguments)],
                cwd=self.folder,
                env=self.environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            running = Running(process, output)
            try:
                yield running
            except BaseException as error:
                error.add_note(f"`{' '.join(map(str, arguments))}` printed:\n{running.printed}")
                raise
            finally:
                process.kill()
                process.wait()
                running.keep()

    def processes(self) -> dict[int, bytes]:
        """The environments of all processes that our commands have started and that still run, by process id."""
        mine = f"{MARKER}={self.marker}".encode()
        found = {int(path.name): _read(path / "environ") for path in Path("/proc").iterdir() if path.name.isdigit()}
        return {
            pid: environment
            for pid, environment in found.items()
            if mine in environment.split(b"\0") or self._is_at_home(pid)
        }

    def _is_at_home(self, pid: int) -> bool:
        """Redis writes its title over its environment, and runs in its folder."""
        with suppress(OSError):
            return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(self.temporary)
        return False

    def command_lines(self) -> dict[int, bytes]:
        """What ps shows of them."""
        return {pid: _read(Path(f"/proc/{pid}/cmdline")).replace(b"\0", b" ") for pid in self.processes()}

    def left(self) -> list[str]:
        """What our commands have left behind: processes and files in the temporary directory."""
        processes = [f"process {pid}: {line.decode()}" for pid, line in self.command_lines().items()]
        return processes + sorted(str(path) for path in self.temporary.rglob("*"))

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFERENCE_WORKER", "XDG_"))}
        return {
            **kept,
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.temporary),
            # Titles would overwrite what /proc shows of the environment.
            "SPT_NOENV": "1",
            MARKER: self.marker,
            **more,
        }


@contextmanager
def command_line(folder: Path) -> Iterator[CommandLine]:
    """A shell in `folder`. At the block's end nothing may be left of what it started: no process and no file."""
    # Not in pytest's folder: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="iw-cli-") as temporary:
        shell = CommandLine(folder, Path(temporary))
        yield shell
        wait_until(lambda: not shell.left(), "nothing is left behind", END_S)


def _read(path: Path) -> bytes:
    """Empty for a process that has ended, or that is another user's."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
