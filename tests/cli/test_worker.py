"""`worker`: one pool's models, from a broker that is there."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from urllib.parse import urlsplit

from common.embedded import EmbeddedRedis
from tests.cli.conftest import MODELS
from tests.support.command import CommandLine
from tests.support.waiting import wait_until

CPU = ("--device", "cpu")


def test_of_the_models_there_only_the_pools_own_are_served(shell: CommandLine, redis_url: str, pool: str) -> None:
    for name, its_pool in (("mine", pool), ("foreign", "elsewhere")):
        folder = shell.folder / "models" / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.toml").write_text(
            f'backend = "python"\npool = "{its_pool}"\n[python]\ncode = "model.py:run"\n'
        )
        (folder / "model.py").write_text("def run(x):\n    return x\n")

    with shell.running("worker", "models", "--pool", pool, *CPU, INFERENCE_WORKER_BROKER=redis_url) as worker:
        worker.wait_for(" serves ")
        listed = json.loads(shell.run("models", "list", "--json", INFERENCE_WORKER_BROKER=redis_url).out)
        assert worker.stop() == 0

    assert [one["name"] for one in listed if one["pool"] == pool] == ["mine"]
    assert f"serves mine:1 in pool '{pool}'" in worker.printed


def test_a_pool_that_no_model_is_for_is_a_configuration_error(shell: CommandLine, redis_url: str, pool: str) -> None:
    folder = shell.folder / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text('backend = "python"\npool = "elsewhere"\n[python]\ncode = "model.py:run"\n')

    done = shell.run("worker", "m", "--pool", pool, *CPU, INFERENCE_WORKER_BROKER=redis_url)

    assert done.code == 78
    assert f"no model in m is for pool '{pool}'; those there are for elsewhere" in done.err


def test_sigterm_lets_what_runs_be_answered_and_exits_with_0(
    shell: CommandLine, redis_url: str, pool: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with (
        shell.running("worker", MODELS, "--pool", pool, *CPU, INFERENCE_WORKER_BROKER=redis_url) as worker,
        shell.running("infer", "waits", "--text", str(gate), "--pool", pool, "--broker", redis_url) as asked,
    ):
        wait_until(Path(f"{gate}.entered").exists, "the model runs")

        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("draining 1 workers")
        gate.touch()

        assert worker.wait() == 0
        assert asked.wait() == 0
        assert asked.printed.startswith("output []: passed\n")


def test_a_password_is_never_shown(shell: CommandLine) -> None:
    # Given a broker with a password, told by the environment
    with EmbeddedRedis(tcp=True) as broker:
        password = str(urlsplit(broker.url).password)
        with shell.running(
            "worker", MODELS, *CPU, "--log-level", "debug", INFERENCE_WORKER_BROKER=broker.url
        ) as worker:
            # When a worker runs, and others ask it and look at it
            worker.wait_for(" serves ")
            command_lines = shell.command_lines()
            environments = shell.processes()
            asked = shell.run("infer", "shout", "--text", "x", INFERENCE_WORKER_BROKER=broker.url)
            worker.stop()
    later = shell.run("infer", "shout", "--text", "x", INFERENCE_WORKER_BROKER=broker.url or "redis://:none@x")
    # Then it is in no process list, in no environment but that of the one who was given it, and in no output
    secret = password.encode()
    assert asked.code == 0
    assert len(command_lines) == len(environments) == 2
    assert not any(secret in line for line in command_lines.values())
    assert [pid for pid, environment in environments.items() if secret in environment] == [worker.process.pid]
    assert password not in worker.printed + asked.out + asked.err + later.out + later.err


def test_a_password_on_the_command_line_is_not_in_ps_once_the_worker_runs(shell: CommandLine) -> None:
    with EmbeddedRedis(tcp=True) as broker:
        secret = str(urlsplit(broker.url).password).encode()
        with shell.running("worker", MODELS, *CPU, "--broker", broker.url) as worker:
            worker.wait_for("worker 0 starts")

            assert not any(secret in line for line in shell.command_lines().values())
            worker.stop()


def test_processes_have_telling_titles(shell: CommandLine, redis_url: str, pool: str) -> None:
    with shell.running("worker", MODELS, "--pool", pool, *CPU, INFERENCE_WORKER_BROKER=redis_url) as worker:
        worker.wait_for(" serves ")

        titles = sorted(line.decode().strip() for line in shell.command_lines().values())

        assert titles == [
            f"inference-worker: supervisor {pool}",
            f"inference-worker: {pool} cpu greet:1 greet:2 root:1 scaled:1 shout:1 span:1 waits:1",
        ] or titles[::-1] == [
            f"inference-worker: supervisor {pool}",
            f"inference-worker: {pool} cpu greet:1 greet:2 root:1 scaled:1 shout:1 span:1 waits:1",
        ]
        worker.stop()
