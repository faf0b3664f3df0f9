"""The processes under fire: hosts (a supervisor with its workers) and callers. Starts them, ends them, starts again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.chaos.models import NOTES
from tests.support.deployments import Deployment

ROOT = Path(__file__).parents[2]
POOL = "chaos"
LEASE_S = 2
#: More than the default: a worker killed by the schedule may hold what has done nothing.
MAX_DELIVERIES = 5


@dataclass(frozen=True, slots=True)
class Share:
    """The requests of one caller, and where it notes the answers."""

    file: Path
    first: int
    stop: int


class Fleet:
    """Everything that runs. `folder` holds notes and logs; nothing of it outlives `stop`."""

    def __init__(self, broker: Deployment, folder: Path, hosts: int, procs: int) -> None:
        self.broker = broker
        self._folder = folder
        self._notes = folder / "notes"
        self._notes.mkdir()
        self._log: IO[bytes] = open(folder / "log", "ab")  # noqa: SIM115 (closed by stop)
        self._procs = procs
        self._leaving: list[subprocess.Popen[bytes]] = []
        self.hosts = [self._start_host() for _ in range(hosts)]
        self.callers: dict[Share, subprocess.Popen[bytes]] = {}

    @property
    def notes(self) -> Path:
        return self._notes

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def call(self, shares: Sequence[Share], per_second: float, seed: int, total: int) -> None:
        """Start a caller for each share."""
        self._calling = (per_second, seed, total)
        for share in shares:
            self.callers[share] = self._start_caller(share)

    def workers(self, host: subprocess.Popen[bytes]) -> list[int]:
        """The process ids of a supervisor's children; empty once it has ended."""
        try:
            return [int(pid) for pid in Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text().split()]
        except OSError:
            return []

    def replace_host(self, host: subprocess.Popen[bytes], number: int) -> None:
        """End a supervisor by a signal, and start one in its place."""
        host.send_signal(number)
        self.hosts[self.hosts.index(host)] = self._start_host()
        self._leaving.append(host)
        if number == signal.SIGKILL:
            host.wait()

    def replace_caller(self, share: Share) -> None:
        process = self.callers[share]
        if process.poll() is None:
            process.kill()
            process.wait()
            self.callers[share] = self._start_caller(share)

    def finished(self) -> bool:
        """All callers have their answers. One that failed is an error."""
        codes = [process.poll() for process in self.callers.values()]
        assert not any(codes), f"a caller ended with an error: {codes}\n{self.log[-4000:]}"
        return all(code == 0 for code in codes)

    def drop_connections(self) -> None:
        self.broker.primary().client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def stop(self) -> None:
        for process in [*self.callers.values(), *self.hosts, *self._leaving]:
            process.kill()
            process.wait()
        self._log.close()

    def _start_host(self) -> subprocess.Popen[bytes]:
        options = ["--pool", POOL, "--device", "cpu", "--procs", str(self._procs), "--lease", str(LEASE_S)]
        options += ["--max-deliveries", str(MAX_DELIVERIES), "--drain", "5"]
        return self._spawn("inference_worker.cli", "worker", *options, str(Path(__file__).with_name("models.py")))

    def _start_caller(self, share: Share) -> subprocess.Popen[bytes]:
        return self._spawn(
            "tests.chaos.caller", self.broker.url, POOL, str(share.file), str(share.first), str(share.stop),
            *map(str, self._calling),
        )  # fmt: skip

    def _spawn(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "INFERENCE_WORKER_BROKER": self.broker.url,
            NOTES: str(self._notes),
        }
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
