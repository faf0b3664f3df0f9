"""Real gateways for a test: `inference-worker gateway`, on a port of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from gateway.door.settings import Address, DoorSettings
from tests.support.command import CommandLine
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
READY_S = 30.0
STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that runs; `address` is `127.0.0.1:PORT`, of the first of its doors."""

    address: str
    process: subprocess.Popen[bytes]
    _output: IO[bytes]

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def printed(self) -> str:
        return os.pread(self._output.fileno(), 1 << 20, 0).decode()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def gateway(
    redis_url: str, pool: str, folder: Path, *options: str, doors: Sequence[str] = ("http",)
) -> Iterator[Gateway]:
    """One that leads all requests to `pool`. At the block's end it must drain and exit with 0."""
    routes = folder / "routes.toml"
    if not routes.exists():
        routes.write_text(f'default = "{pool}"\n')
    with tempfile.TemporaryFile() as output:
        command = [
            sys.executable, "-m", "inference_worker.cli", "gateway", "--routes", str(routes), "--notice", "0.2",
            *(word for door in doors for word in (f"--{door}", "127.0.0.1:0")), *options,
        ]  # fmt: skip
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "INFERENCE_WORKER_BROKER": redis_url},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Gateway(_address(doors[0], process, output), process, output)
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOP_S) == 0
        except BaseException as error:
            error.add_note(f"the gateway printed:\n{os.pread(output.fileno(), 1 << 20, 0).decode()}")
            raise
        finally:
            process.kill()
            process.wait()


@contextmanager
def gateway_process(settings: DoorSettings, most_open_files: int | None = None) -> Iterator[str]:
    """One process of a gateway, with settings that no flag makes; its address. Over `most_open_files` at first."""
    port = _free_port()
    listening = replace(settings, http=Address("127.0.0.1", port), notice_s=0.0)
    limit = f"ulimit -S -n {most_open_files}; " if most_open_files else ""
    process = subprocess.Popen(
        ["sh", "-c", f'{limit}exec "$0" -m gateway.door.child', sys.executable],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(listening.to_json().encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"ready": True}
        yield f"127.0.0.1:{port}"
        process.terminate()
        assert process.wait(STOP_S) == 0
    finally:
        process.kill()
        process.communicate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _address(door: str, process: subprocess.Popen[bytes], output: IO[bytes]) -> str:
    def said() -> re.Match[str] | None:
        printed = os.pread(output.fileno(), 1 << 20, 0).decode()
        assert process.poll() is None, f"the gateway ended with {process.returncode}"
        return re.search(rf"{door}://(127\.0\.0\.1:\d+) takes requests", printed)

    found = wait_until(said, "the gateway takes requests", READY_S)
    assert found is not None
    return found[1]


def new_key(shell: CommandLine, *arguments: str) -> str:
    """A key in the shell's file keys.json, for the tenant and with the options that `arguments` name."""
    done = shell.run("keys", "create", *arguments, "--keys", "keys.json")
    assert done.code == 0, done.err
    return done.out.strip()
