"""One child process: its start, its pipes, its end. Carries the protocol's lines and does not know what they mean."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, cast

from inference_worker.supervision.placement import Placement, environment
from inference_worker.supervision.watchdog import Sight

COMMAND = (sys.executable, "-m", "inference_worker.process")
#: Variables that may hold the broker's URL, and with it a password: the one of all commands, and each command's own.
_BROKER_VARIABLE = re.compile(r"INFERENCE_WORKER(_\w+)?_BROKER")
#: Names the descriptor on which the child writes its status lines.
STATUS_FD = "INFERENCE_WORKER_STATUS_FD"

STDERR = 2

log = logging.getLogger(__name__)


class Child:
    """A running child. `status_fd` becomes readable when it says something, `exit_fd` (None: not here) when it ends."""

    def __init__(self, process: subprocess.Popen[bytes], status_fd: int) -> None:
        self._process = process
        self._stdin = cast(IO[bytes], process.stdin)
        self.pid = process.pid
        self.status_fd = status_fd
        self.exit_fd = _open_pidfd(process.pid)
        self.talks = True
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """The status lines that are there, without waiting. `talks` is False once its end of the pipe is closed."""
        while self.talks:
            try:
                data = os.read(self.status_fd, 1 << 20)
            except BlockingIOError:
                break
            self._rest += data
            self.talks = bool(data)
        lines, self._rest = parse_lines(self._rest)
        return lines

    def send(self, line: Mapping[str, Any]) -> None:
        """Write one line to its standard input. One that has died cannot read it, and its end is seen elsewhere."""
        with suppress(BrokenPipeError):
            self._stdin.write(json.dumps(line).encode() + b"\n")

    def poll(self) -> int | None:
        """Its exit code once it has ended. What models have started in it ends with it."""
        if self._process.returncode is None and _has_ended(self.pid):
            self.kill()
        return self._process.poll()

    def kill(self) -> None:
        """End it at once, and the processes that models have started in it."""
        # Until it is waited for its id is its own, and so is the group that it leads, which may outlive it.
        if self._process.returncode is None:
            # macOS forbids to signal a group of which only the ended leader is left.
            with suppress(PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def sight(self) -> Sight | None:
        """Its process as the system shows it; None where it does not, as only Linux has /proc."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="utf-8", errors="replace") as file:
                # The name in parentheses may hold anything; state, and processor time as user and as system.
                state, *facts = file.read().rpartition(")")[2].split()
        except OSError:
            return None
        return Sight(state == "T", int(facts[10]) + int(facts[11]))

    def close(self) -> None:
        """Wait for it, which must have been killed or have ended, and close the pipes."""
        self._process.wait()
        self._stdin.close()
        os.close(self.status_fd)
        if self.exit_fd is not None:
            os.close(self.exit_fd)

    def __repr__(self) -> str:
        return f"Child(pid={self.pid}, code={self._process.returncode})"


def start(
    command: Sequence[str], placement: Placement, config: Mapping[str, Any], inherited: Mapping[str, str]
) -> Child:
    """Start a fresh process on its placement and hand it its configuration, secrets too, through standard input.

    Raises OSError where the system starts no process.
    """
    ours, theirs = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            # What models print is no part of a command's own output.
            stdout=STDERR,
            pass_fds=(theirs,),
            env=child_environment(placement, theirs, inherited),
            # A terminal's Ctrl-C goes to its foreground group: it must reach the supervisor alone.
            process_group=0,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    os.set_blocking(ours, False)
    _pin(process.pid, placement.cores)
    child = Child(process, ours)
    child.send(config)
    return child


def child_environment(placement: Placement, status_fd: int, inherited: Mapping[str, str]) -> dict[str, str]:
    """`inherited` without the broker's URL, with what the placement says."""
    kept = {name: value for name, value in inherited.items() if not _BROKER_VARIABLE.fullmatch(name)}
    return kept | environment(placement) | {STATUS_FD: str(status_fd)}


def parse_lines(data: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """(the complete status lines in `data`, the bytes after them)"""
    *lines, rest = data.split(b"\n")
    return [message for line in lines if (message := _parse(line)) is not None], rest


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if isinstance(message, dict):
        return message
    log.warning("a child's status line is no JSON map and is passed over: %.200r. This is a bug.", line)
    return None


def _has_ended(pid: int) -> bool:
    """Whether it has. It stays to be waited for, so that nobody else gets its id meanwhile."""
    # macOS has waitid from Python 3.13 on; before, a model's processes there outlive a child that crashed.
    return hasattr(os, "waitid") and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _pin(pid: int, cores: tuple[int, ...]) -> None:
    # From here and at once, before the child has threads. It may have died already, or a sandbox may forbid it:
    # an unpinned child works too, since its thread count is set.
    if cores and sys.platform == "linux":
        with suppress(OSError):
            os.sched_setaffinity(pid, cores)


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None  # Not Linux, or before 5.3: the supervisor looks once a second.
