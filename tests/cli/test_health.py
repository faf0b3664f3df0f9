"""`health`: what a container's and a service's probes ask, by its exit code."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from common.embedded import EmbeddedRedis
from tests.support.command import MODELS, CommandLine
from tests.support.running import workers
from tests.support.waiting import wait_until

#: Nobody listens there.
AWAY = "redis://127.0.0.1:1"
ENDLESS = """
import time
from inference_worker import Model

class Endless(Model):
    name = "endless"
    inputs = {"x": "FP32[]"}

    def load(self, context):
        time.sleep(600)

    def infer(self, batch):
        return batch["x"]
"""


def test_a_host_whose_worker_is_ready_is_live_and_ready(shell: CommandLine, redis_url: str, pool: str) -> None:
    with workers(redis_url, pool, MODELS):
        ready = shell.run("health", "--pool", pool, "--broker", redis_url)
        live = shell.run("health", "--pool", pool, "--broker", redis_url, "--live")
        by_variable = shell.run("health", "--broker", redis_url, INFERENCE_WORKER_WORKER_POOL=pool)

    assert (ready.code, ready.out) == (0, f"1 of 1 workers of pool '{pool}' on this host are ready\n")
    assert (live.code, by_variable.code) == (0, 0)


def test_a_host_that_still_loads_is_live_and_not_ready(shell: CommandLine, redis_url: str, pool: str) -> None:
    endless = shell.folder / "endless.py"
    endless.write_text(ENDLESS)
    asked = ("health", "--pool", pool, "--broker", redis_url)
    with shell.running("worker", "--pool", pool, "--broker", redis_url, "--device", "cpu", endless) as host:
        wait_until(lambda: shell.run(*asked, "--live").code == 0, "it holds a lease", 30)

        done = shell.run(*asked)

        assert host.stop() == 0
    assert done.code == 1
    assert done.out.startswith(f"0 of 1 workers of pool '{pool}' on this host are ready; others: ")


@pytest.mark.parametrize("more", [[], ["--live"]])
def test_a_host_without_a_worker_is_neither(more: list[str], shell: CommandLine, redis_url: str, pool: str) -> None:
    done = shell.run("health", "--pool", pool, "--broker", redis_url, *more)

    assert done.code == 1
    assert done.out.startswith(f"no worker of pool '{pool}' on host ")


def test_a_supervisor_that_stands_still_past_its_lease_is_not_live(
    shell: CommandLine, redis_url: str, pool: str
) -> None:
    live = ("health", "--pool", pool, "--broker", redis_url, "--live")
    with workers(redis_url, pool, MODELS, options=["--lease", "1"]) as supervisor:
        assert shell.run(*live).code == 0
        os.kill(supervisor.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: shell.run(*live).code == 1, "its lease has run out", 20)
        finally:
            os.kill(supervisor.pid, signal.SIGCONT)
        wait_until(lambda: shell.run(*live).code == 0, "it holds a lease again", 20)


def test_a_broker_that_is_away_makes_it_unready_and_ends_nobody(shell: CommandLine) -> None:
    assert shell.run("health", "--broker", AWAY).code == 69
    assert shell.run("health", "--broker", AWAY, "--live").code == 0


def test_a_password_that_is_being_changed_ends_nobody(shell: CommandLine) -> None:
    with EmbeddedRedis(tcp=True) as server:
        wrong = f"redis://:other@{server.url.rpartition('@')[2]}"

        assert shell.run("health", "--broker", wrong).code == 78
        assert shell.run("health", "--broker", wrong, "--live").code == 0


def test_a_probe_imports_no_framework(tmp_path: Path, shell: CommandLine) -> None:
    noted = tmp_path / "sitecustomize.py"
    noted.write_text(
        "import atexit, sys\n"
        "atexit.register(lambda: print({'torch', 'onnxruntime', 'starlette'} & sys.modules.keys()))\n"
    )

    done = shell.run("health", "--broker", AWAY, "--live", PYTHONPATH=f"{tmp_path}:{':'.join(sys.path)}")

    assert done.out.splitlines()[1:] == ["set()"]
