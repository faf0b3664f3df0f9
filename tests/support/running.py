"""Real workers for a test: `inference-worker worker`, with the processes that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgpack

from common.broker import Broker
from common.connect import connect
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import redis

ROOT = Path(__file__).parents[2]
#: Models in torch take seconds to import it; those in plain Python are there in one.
START_S = 60.0
STOP_S = 20.0


@contextmanager
def workers(
    redis_url: str, pool: str, *paths: str | Path, procs: int = 1, options: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """`procs` processes that serve the models of `pool` under `paths`; they are ready when the block begins.

    The models of a Python file belong to whichever pool they are started for.

    At its end SIGTERM makes them drain, and they must exit with 0. Whatever fails, inside the block or
    here, shows what they printed. Gives the supervisor's process.
    """
    with tempfile.TemporaryFile() as output:
        process = _start(redis_url, pool, paths, procs, options, output)
        try:
            _wait_until_ready(process, redis_url, pool, procs)
            yield process
            _stop(process)
        except BaseException as error:
            error.add_note(f"The workers of pool '{pool}' printed:\n{_printed(output)}")
            raise
        finally:
            # The children end with it.
            process.kill()
            process.wait()


def _start(
    redis_url: str, pool: str, paths: tuple[str | Path, ...], procs: int, more: Sequence[str], output: IO[bytes]
) -> subprocess.Popen[bytes]:
    options = ["--pool", pool, "--device", "cpu", "--procs", str(procs), "--log-level", "info", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "inference_worker.cli", "worker", *options, *map(str, paths)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "INFERENCE_WORKER_BROKER": redis_url},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def _wait_until_ready(process: subprocess.Popen[bytes], redis_url: str, pool: str, procs: int) -> None:
    client = connect(redis_url)
    broker = Broker(client, pool)

    def all_ready() -> bool:
        assert process.poll() is None, f"the workers ended with {process.returncode} before they were ready"
        ready = [worker for worker in _described(client, broker, process.pid) if worker["state"] == "ready"]
        served = {model for worker in ready for model in worker["models"]}
        return len(ready) == procs and served <= broker.models().keys()

    try:
        wait_until(all_ready, f"{procs} workers of pool '{pool}' are ready", START_S)
    finally:
        client.close()


def _described(client: redis.Redis, broker: Broker, supervisor: int) -> list[dict[str, Any]]:
    """What one supervisor's workers say of themselves. An ended lease leaves an empty description."""
    consumers = client.hgetall(broker.keys.workers).items()
    return [msgpack.unpackb(one) for name, one in consumers if f"-{supervisor}-".encode() in name and one]


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None, f"the workers ended by themselves, with {process.returncode}"
    process.send_signal(signal.SIGTERM)
    code = process.wait(STOP_S)
    assert code == 0, f"the workers ended with {code} after SIGTERM"


def _printed(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode(errors="replace")
