"""`up`: a broker and workers in one command, found by the others, gone with everything that it started."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from pathlib import Path

import pytest

from common.connect import connect
from inference_worker.supervision.stopsignals import ECHO_S
from tests.support.command import END_S, MODELS, ROOT, CommandLine
from tests.support.waiting import wait_until

CPU = ("--device", "cpu")
MANIFEST = 'backend = "python"\npool = "{pool}"\n[python]\ncode = "model.py:run"\n'
SLOW_MODEL = """
import time
from inference_worker import Model

class Slow(Model):
    def load(self, context):
        time.sleep(60)

    def infer(self, batch):
        return batch["x"]
"""


def section(title: str) -> str:
    """The README's section."""
    return (ROOT / "README.md").read_text("utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]


def lines_of(printed: str) -> list[str]:
    """The supervisor's lines, without the time that each begins with where standard error is no terminal."""
    stamp = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")
    return [stamp.sub("", line) for line in printed.splitlines() if stamp.match(line)]


def commands(text: str) -> list[list[str]]:
    """The arguments of each `inference-worker` line in it."""
    return [shlex.split(line)[1:] for line in re.findall(r"^    (inference-worker .*)$", text, re.M)]


def add_model(models: Path, name: str, pool: str) -> None:
    folder = models / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(MANIFEST.format(pool=pool))
    (folder / "model.py").write_text(f"def run(x):\n    return ['{name}'] * len(x)\n")


def test_the_readmes_first_model_has_under_ten_lines_serves_and_answers(shell: CommandLine) -> None:
    # Given the model and the two commands of the README
    text = section("Your first model")
    code = re.search(r"```python\n(.*?)```", text, re.S)
    assert code is not None
    assert len(code[1].splitlines()) < 10
    (shell.folder / "mymodel.py").write_text(code[1])
    up, infer = commands(text)[:2]
    # When they run in two processes
    with shell.running(*up) as server:
        server.wait_for(" serves ")
        answer = shell.run(*infer)
        code_at_end = server.stop()
    # Then the second one finds the first one's broker, and its model answers
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("output []: HELLO\n")
    assert code_at_end == 0


def test_up_starts_the_pools_of_all_models(shell: CommandLine) -> None:
    for name, pool in (("one", "pool-a"), ("two", "pool-b")):
        add_model(shell.folder / "models", name, pool)

    with shell.running("up", "models", *CPU) as up:
        up.wait_for("serves one:1 in pool 'pool-a'")
        up.wait_for("serves two:1 in pool 'pool-b'")
        listed = json.loads(shell.run("models", "list", "--json").out)
        answer = shell.run("infer", "two", "--json", '{"x": 1}', "--pool", "pool-b")
        assert up.stop() == 0

    assert [(one["name"], one["pool"]) for one in listed] == [("one", "pool-a"), ("two", "pool-b")]
    assert answer.out.startswith("output []: two\n")


def test_up_uses_the_broker_that_it_is_given(shell: CommandLine, redis_url: str, pool: str) -> None:
    with shell.running("up", MODELS, *CPU, "--broker", redis_url, "--pool", pool) as up:
        up.wait_for(" serves ")
        answer = shell.run("infer", "shout", "--text", "hello", "--pool", pool)
        assert not any(b"redis-server" in line for line in shell.command_lines().values())
        assert up.stop() == 0

    assert answer.out.startswith("output []: HELLO\n")


def test_of_two_the_last_started_is_found_and_then_the_first_again(shell: CommandLine) -> None:
    (shell.folder / "other.py").write_text(
        "from inference_worker import model\n\n\n@model\ndef other(x):\n    return x\n"
    )
    with shell.running("up", MODELS, *CPU) as first:
        first.wait_for(" serves ")
        with shell.running("up", "other.py", *CPU) as second:
            second.wait_for(" serves ")
            while_both_run = shell.run("models", "list").out
            second.stop()
        after_the_second = shell.run("models", "list").out
        first.stop()

    assert while_both_run.startswith("other:1")
    assert after_the_second.startswith("greet:1 (prod)")


def test_one_that_was_killed_leaves_no_process_and_is_not_found_any_more(shell: CommandLine) -> None:
    with shell.running("up", MODELS, *CPU) as up:
        up.wait_for(" serves ")
        up.stop(signal.SIGKILL)
    wait_until(lambda: not shell.processes(), "all that it started has ended", END_S)

    asked = shell.run("infer", "shout", "--text", "x")

    assert asked.code == 69
    assert "no broker answers at redis://127.0.0.1:6379" in asked.error
    # Its announcement is swept away by the next one, which leaves nothing itself.
    with shell.running("up", MODELS, *CPU) as up:
        up.wait_for(" serves ")
        up.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(shell: CommandLine, number: int) -> None:
    with shell.running("up", MODELS, *CPU) as up:
        up.wait_for(" serves ")

        code = up.stop(number)

    assert code == 0
    assert lines_of(up.printed)[-2:] == [
        "draining 1 workers, within 30 s; once more ends them at once",
        "worker 0 ended with 0",
    ]


def test_a_second_ctrl_c_ends_at_once(shell: CommandLine, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with shell.running("up", MODELS, *CPU) as up:
        up.wait_for(" serves ")
        with shell.running("infer", "waits", "--text", str(gate)):
            wait_until(Path(f"{gate}.entered").exists, "the model runs")
            first = time.monotonic()
            up.process.send_signal(signal.SIGINT)
            up.wait_for("draining")
            wait_until(lambda: time.monotonic() - first > 2 * ECHO_S, "the second one is no echo of the first")
            began = time.monotonic()

            code = up.stop(signal.SIGINT)

            assert code == 0
            assert time.monotonic() - began < 5
            assert "worker 0 ended by signal 9" in up.printed


@pytest.mark.parametrize("echo", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_twice_at_once_drains(shell: CommandLine, tmp_path: Path, echo: int) -> None:
    gate = tmp_path / "gate"
    with shell.running("up", MODELS, *CPU) as up:
        up.wait_for(" serves ")
        with shell.running("infer", "waits", "--text", str(gate)) as asked:
            wait_until(Path(f"{gate}.entered").exists, "the model runs")

            # As `timeout` sends it, to the process and then to its group.
            up.process.send_signal(signal.SIGTERM)
            up.process.send_signal(echo)

            up.wait_for("draining")
            gate.touch()
            assert asked.wait() == 0
            assert up.wait() == 0
    assert lines_of(up.printed)[-1] == "worker 0 ended with 0"


def test_one_whose_broker_is_killed_says_so_and_ends_with_all_that_it_started(shell: CommandLine) -> None:
    with shell.running("up", MODELS, *CPU) as up:
        up.wait_for(" serves ")
        url = re.search(r"broker (unix://\S+);", up.printed)
        assert url is not None
        client = connect(url[1])
        server = client.info("server")["process_id"]
        client.close()

        os.kill(server, signal.SIGKILL)

        assert up.wait() == 69
    assert up.printed.splitlines()[-1] == (
        "inference-worker: the embedded Redis has ended by signal 9 (Killed), and all requests with it; start again"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_anything_is_ready_leaves_nothing_either(shell: CommandLine, number: int) -> None:
    """Which the fixture checks."""
    (shell.folder / "slow.py").write_text(SLOW_MODEL)
    with shell.running("up", "slow.py", *CPU) as up:
        wait_until(lambda: any(shell.temporary.iterdir()), "the broker's folder is there")

        up.stop(number)

    assert "Traceback" not in up.printed


def test_a_model_that_cannot_be_read_is_told_once(shell: CommandLine) -> None:
    (shell.folder / "broken.py").write_text("\nx = \n")

    done = shell.run("up", "broken.py", *CPU)

    told = [line for line in done.err.splitlines() if "broken.py:2 cannot be imported: SyntaxError" in line]
    assert done.code == 78
    assert len(told) == 1


def test_a_wrong_device_is_told_before_anything_is_started(shell: CommandLine) -> None:
    done = shell.run("up", MODELS, "--device", "tpu")

    assert done.code == 78
    assert done.error == "inference-worker: device must be cpu, cuda, cuda:N or auto, separated by commas; got 'tpu'"


def test_where_the_broker_cannot_be_announced_it_still_serves(shell: CommandLine) -> None:
    with shell.running("up", MODELS, *CPU, XDG_RUNTIME_DIR=str(shell.folder / "missing")) as up:
        up.wait_for("warning: other commands must name this broker, it cannot be announced")
        up.wait_for(" serves ")
        url = re.search(r"broker (unix://\S+);", up.printed)
        assert url is not None
        client = connect(url[1])
        assert client.ping()
        client.close()
        assert up.stop() == 0
