"""A supervisor that is a process: what signals do to it, and what its death does to its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inference_worker.supervision.stopsignals import ECHO_S
from tests.support.supervised import alive
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


class Running:
    """A started supervisor, read line by line."""

    def __init__(self, process):
        self.process = process
        self.child = 0
        self.code = None

    def wait_for(self, word):
        for line in self.process.stdout:
            if line.startswith("started"):
                self.child = int(line.split()[1])
            if line.startswith("exited"):
                self.code = int(line.split()[1])
            if line.split()[0] == word:
                return
        raise AssertionError(f"the supervisor ended before it said '{word}'")

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        return self.process.wait(timeout=10)


@pytest.fixture
def supervisor(redis_url, pool, tmp_path):
    """Starts a supervisor of one fake child of the given manner."""
    running = []

    def start(manner):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.run_supervisor", redis_url, pool, manner, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return Running(process)

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(supervisor, number):
    it = supervisor("good")
    it.wait_for("ready")

    it.signal(number)

    assert it.wait() == 0
    assert not alive(it.child)


def test_the_second_signal_ends_at_once(supervisor):
    it = supervisor("deaf")
    it.wait_for("ready")
    first = time.monotonic()
    it.signal(signal.SIGTERM)
    it.wait_for("draining")
    wait_until(lambda: time.monotonic() - first > 2 * ECHO_S, "the second signal is no echo of the first")
    assert alive(it.child)

    began = time.monotonic()
    it.signal(signal.SIGTERM)

    assert it.wait() == 0
    assert time.monotonic() - began < 5.0
    assert not alive(it.child)


@pytest.mark.parametrize("echo", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_twice_at_once_is_one_wish(supervisor, tmp_path, echo):
    it = supervisor("slow")
    it.wait_for("ready")

    # As `timeout` sends it, to the process and then to its group.
    it.signal(signal.SIGTERM)
    it.signal(echo)

    it.wait_for("draining")
    assert alive(it.child)
    (tmp_path / "gate").touch()
    it.wait_for("exited")
    assert it.code == 0
    assert it.wait() == 0


def test_a_terminals_ctrl_c_does_not_reach_the_children(supervisor):
    it = supervisor("good")
    it.wait_for("ready")

    assert os.getpgid(it.child) not in (os.getpgid(it.process.pid), os.getpgid(0))


@pytest.mark.parametrize("manner", ["good", "deaf", "loading"])
def test_children_die_with_a_supervisor_that_is_killed(supervisor, manner):
    it = supervisor(manner)
    it.wait_for("started" if manner == "loading" else "ready")

    it.signal(signal.SIGKILL)
    it.wait()

    wait_until(lambda: not alive(it.child), "the child has ended")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a stopped child with its parent")
def test_even_a_stopped_child_dies_with_a_supervisor_that_is_killed(supervisor):
    it = supervisor("stopped")
    it.wait_for("ready")

    it.signal(signal.SIGKILL)
    it.wait()

    wait_until(lambda: not alive(it.child), "the child has ended")
