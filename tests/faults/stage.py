"""Where a fault happens: one Redis, one pool, hosts (a supervisor with its workers) and clients as real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import msgpack

from common.broker import Broker
from common.connect import connect
from common.keys import GROUP
from gateway import Client
from tests.faults.models import NOTES
from tests.support.leaks import leaked_keys
from tests.support.supervised import alive
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
MODELS = Path(__file__).with_name("models.py")
#: The shortest that the command takes is 1 s; this one also holds on a machine that is busy.
LEASE_S = 2
READY_S = 60.0
#: Nothing that a test waits for takes so long, but on a machine that is very busy.
WITHIN_S = 60.0


class Host:
    """One `inference-worker worker` with its processes."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def printed(self) -> str:
        return self._log.read_text(errors="replace")

    def workers(self) -> list[int]:
        """The process ids of its workers; empty once the supervisor has ended."""
        try:
            listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in listed.split()]

    def runs(self, pid: int) -> bool:
        return pid in self.workers()

    def pause(self) -> None:
        """Stand still, all of it, as a host does that swaps or migrates."""
        self._paused = [self.process.pid, *self.workers()]
        _signal_all(self._paused, signal.SIGSTOP)

    def resume(self) -> None:
        _signal_all(self._paused, signal.SIGCONT)

    def kill(self) -> list[int]:
        """SIGKILL to the supervisor alone; the workers that it had."""
        workers = self.workers()
        self.process.kill()
        self.process.wait()
        return workers

    def stop(self, within_s: float = WITHIN_S) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def end(self) -> None:
        for pid in (self.process.pid, *self.workers()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        for pid in self.kill():
            wait_until(lambda pid=pid: not alive(pid), "a worker ends with its supervisor")  # type: ignore[misc]


class Stage:
    """`folder` holds notes, logs and gates. `hosts` are ended when the stage is left."""

    def __init__(self, url: str, pool: str, folder: Path) -> None:
        self.url = url
        self.pool = pool
        self.folder = folder
        self.notes = folder / "notes"
        self.notes.mkdir()
        self.hosts: list[Host] = []
        self._connect()

    def reconnect(self) -> None:
        """Redis was started again under the connections of before."""
        self.redis.close()
        self._connect()

    def _connect(self) -> None:
        # redis-py's annotations know neither streams nor replies as bytes.
        self.redis: Any = connect(self.url)
        self.broker = Broker(self.redis, self.pool)

    def host(self, *, procs: int = 1, ready: bool = True, **how: Any) -> Host:
        """Start one. `how`: see `_start`."""
        number = len(self.hosts)
        log = self.folder / f"host{number}.log"
        host = Host(self._start(procs, log, **how), log)
        self.hosts.append(host)
        if ready:
            self.wait_ready(host, procs)
        return host

    def wait_ready(self, host: Host, procs: int = 1) -> None:
        def ready() -> bool:
            assert host.process.poll() is None, f"the host ended with {host.process.returncode}"
            return [one["state"] for one in self.described(host)].count("ready") == procs

        wait_until(ready, f"{procs} workers are ready", READY_S)

    def described(self, host: Host) -> list[dict[str, Any]]:
        """What a host's workers say of themselves. An ended lease leaves an empty description."""
        told = self.redis.hgetall(self.broker.keys.workers)
        return [msgpack.unpackb(one) for name, one in told.items() if f"-{host.process.pid}-".encode() in name and one]

    def client(self, url: str = "", **settings: Any) -> Client:
        return Client(url or self.url, pool=self.pool, timeout_s=settings.pop("timeout_s", WITHIN_S), **settings)

    def gate(self) -> Path:
        """A new one, closed. `touch` opens it."""
        return self.folder / f"gate-{uuid4().hex[:8]}"

    def entered(self, gate: Path, times: int = 1) -> list[int]:
        """The processes that have come to the gate, as soon as so many have."""
        file = gate.with_name(f"{gate.name}.entered")

        def pids() -> list[int]:
            found = [int(line) for line in file.read_text().splitlines()] if file.exists() else []
            return found if len(found) >= times else []

        return wait_until(pids, f"{times} came to the gate", WITHIN_S)

    def computed(self) -> Counter[int]:
        """How often each number was computed."""
        return Counter(int(line) for file in self.notes.iterdir() for line in file.read_text().split())

    def again(self) -> int:
        """Computations beyond the first of each."""
        return sum(times - 1 for times in self.computed().values())

    def pending(self) -> list[dict[str, Any]]:
        """XPENDING's entries: message_id, consumer, time_since_delivered, times_delivered."""
        keys = self.broker.keys
        return [one for stream in keys.streams for one in self.redis.xpending_range(stream, GROUP, "-", "+", 1000)]

    def unfinished(self) -> int:
        return sum(int(self.redis.xlen(stream)) for stream in self.broker.keys.streams)

    def age_s(self) -> float:
        """Of the newest unfinished request of normal priority, by Redis's clock."""
        [(entry, _)] = self.redis.xrevrange(self.broker.keys.streams[1], count=1)
        seconds, micros = self.redis.time()
        return float(seconds + micros / 1e6 - int(entry.split(b"-")[0]) / 1e3)

    def letters(self) -> list[dict[bytes, bytes]]:
        """The fields of the dead letters."""
        return [fields for _, fields in self.redis.xrange(self.broker.keys.dead)]

    def end(self) -> None:
        for host in self.hosts:
            host.end()

    def _start(
        self,
        procs: int,
        log: Path,
        *,
        url: str = "",
        lease_s: float = LEASE_S,
        options: Sequence[str] = (),
        models: Path = MODELS,
        environment: Mapping[str, str] | None = None,
        stderr: IO[bytes] | None = None,
        before: Callable[[], None] | None = None,
    ) -> subprocess.Popen[bytes]:
        """`url`: where it believes Redis to be. `before` runs in the new process, for its limits."""
        command = [
            sys.executable, "-m", "inference_worker.cli", "worker", "--pool", self.pool, "--device", "cpu",
            "--procs", str(procs), "--lease", str(lease_s), *options, str(models),
        ]  # fmt: skip
        told = {"PYTHONPATH": str(ROOT), "INFERENCE_WORKER_BROKER": url or self.url, NOTES: str(self.notes)}
        with log.open("ab") as output:
            return subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **told, **(environment or {})}, preexec_fn=before,
                stdin=subprocess.DEVNULL, stdout=output, stderr=stderr or output,
            )  # fmt: skip


@contextmanager
def stage_on(url: str, folder: Path, pool: str = "faults") -> Iterator[Stage]:
    """A stage on that Redis. Whatever fails, what its hosts printed is shown; at its end nothing may be left.

    Left behind would be a key without a TTL that is not permanent, and work in the streams.
    """
    stage = Stage(url, pool, folder)
    with ExitStack() as after:
        after.callback(lambda: stage.redis.close())
        after.callback(stage.end)
        try:
            yield stage
            stage.reconnect()
            wait_until(lambda: not stage.unfinished(), "no work is left in the streams", WITHIN_S)
            wait_until(lambda: not stage.redis.hlen(stage.broker.keys.tenants), "no tenant's count is left")
            wait_until(lambda: not leaked_keys(stage.redis, pool), "each key that is not permanent has a TTL")
        except BaseException as error:
            for host in stage.hosts:
                error.add_note(f"host {host.process.pid} printed:\n{host.printed[-3000:]}")
            raise


def _signal_all(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
