"""`worker`: one pool's models, from a broker that is there."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from common.connect import connect
from common.embedded import EmbeddedRedis, find_server, free_port
from common.keys import DEFAULT_POOL, PoolKeys
from tests.support.command import MODELS, CommandLine
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
    with shell.running("worker", MODELS, "--pool", pool, *CPU, INFERENCE_WORKER_BROKER=redis_url) as worker:
        worker.wait_for(" serves ")
        with shell.running("infer", "waits", "--text", str(gate), "--pool", pool, "--broker", redis_url) as asked:
            wait_until(Path(f"{gate}.entered").exists, "the model runs")

            worker.process.send_signal(signal.SIGTERM)
            worker.wait_for("draining 1 workers")
            gate.touch()

            assert worker.wait() == 0
            assert asked.wait() == 0
            assert asked.printed.startswith("output []: passed\n")


def test_one_that_bounds_the_backlog_waits_for_its_broker_as_others_do(shell: CommandLine) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with shell.running("worker", MODELS, *CPU, "--max-backlog", "7", INFERENCE_WORKER_BROKER=url) as worker:
        worker.wait_for(f"pool '{DEFAULT_POOL}' has no broker, tried again each second")
        with plain_redis(port) as client:
            worker.wait_for(" serves ")

            assert client.hget(PoolKeys(DEFAULT_POOL).limits, "backlog") == b"7"
            assert worker.stop() == 0


@contextmanager
def plain_redis(port: int) -> Iterator[redis.Redis]:
    """A server without a password on a port that was agreed upon."""
    server = subprocess.Popen(
        [find_server(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL
    )
    client = connect(f"redis://127.0.0.1:{port}/0")
    try:
        yield client
    finally:
        client.close()
        server.kill()
        server.wait()


def test_a_misspelt_password_is_a_configuration_error_at_once(shell: CommandLine) -> None:
    with EmbeddedRedis(tcp=True) as broker:
        wrong = f"redis://:misspelt@{broker.url.rpartition('@')[2]}"
        done = shell.run("worker", MODELS, *CPU, INFERENCE_WORKER_BROKER=wrong)

    assert done.code == 78
    last = done.err.splitlines()[-1]
    assert last.startswith("inference-worker: Redis refuses the user, the password or a permission of the broker URL: ")


@pytest.mark.parametrize("variable", ["INFERENCE_WORKER_BROKER", "INFERENCE_WORKER_WORKER_BROKER"])
def test_a_password_is_never_shown(shell: CommandLine, variable: str) -> None:
    # Given a broker with a password, told by the environment
    with EmbeddedRedis(tcp=True) as broker:
        told = {"INFERENCE_WORKER_BROKER": broker.url}
        password = str(urlsplit(broker.url).password)
        with shell.running("worker", MODELS, *CPU, "--log-level", "debug", **{variable: broker.url}) as worker:
            # When a worker runs, and another command asks it, at last in vain
            worker.wait_for(" serves ")
            command_lines, environments = shell.command_lines(), shell.processes()
            asked = shell.run("infer", "shout", "--text", "x", **told)
            worker.stop()
    in_vain = shell.run("infer", "shout", "--text", "x", **told)
    # Then it is in no process list, in no environment but that of the one who was given it, and in no output
    secret = password.encode()
    assert (asked.code, in_vain.code) == (0, 69)
    assert len(command_lines) == len(environments) == 2
    assert not any(secret in line for line in command_lines.values())
    assert [pid for pid, environment in environments.items() if secret in environment] == [worker.process.pid]
    assert password not in worker.printed + asked.out + asked.err + in_vain.out + in_vain.err


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

        titles = sorted(line.decode() for line in shell.command_lines().values())

        # They are cut here, as this test keeps the environment behind them readable.
        assert titles[0].startswith("inference-worker: supervisor test-")
        assert titles[1].startswith(f"inference-worker: {pool} cpu greet:1 ")
        assert worker.stop() == 0
