"""`demo`: what it prints, and that Ctrl-C at any moment leaves nothing behind."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import CommandLine, Running
from tests.support.waiting import wait_until

QUESTION = "How do I get my money back for something that arrived broken?"
SENTENCES = 420

Moment = Callable[[CommandLine, Running], None]


@pytest.mark.slow
def test_piped_it_prints_plain_results_and_exits_with_0(shell: CommandLine) -> None:
    done = shell.run("demo")

    assert done.code == 0, done.err
    sections = dict(part.partition("\n")[::2] for part in done.out.strip().split("\n\n"))
    nearest, positive, negative, computed, cached = sections.values()
    assert list(sections) == [
        f"Nearest to: {QUESTION}",
        "Most positive",
        "Most negative",
        "First pass: computed",
        "Second pass: the same sentences again",
    ]
    assert "refund" in nearest
    assert len(nearest.splitlines()) == len(positive.splitlines()) == len(negative.splitlines()) == 5
    assert positive.startswith("+0.9")
    assert negative.startswith("-0.")
    for line, share in [(one, "0%") for one in computed.splitlines()] + [
        (one, "100%") for one in cached.splitlines()[:2]
    ]:
        model, answered, _, from_cache, batches = line.split("\t")
        assert (model in ("minilm", "sentiment"), answered, from_cache) == (True, str(SENTENCES), share)
        assert batches == "none" if share == "100%" else re.fullmatch(r"\d+ x \d+(, \d+ x \d+)*", batches)
    assert re.search(r"^minilm: the second pass was [\d.,]+ times as fast$", cached, re.M)
    assert "\x1b" not in done.out + done.err, "no colours and no bars"


def has_begun(shell: CommandLine, demo: Running) -> None:
    command_line = Path(f"/proc/{demo.process.pid}/cmdline")
    wait_until(lambda: b"inference_worker.cli" in command_line.read_bytes(), "Python has begun")


def starts_redis(shell: CommandLine, demo: Running) -> None:
    wait_until(lambda: any(shell.temporary.iterdir()), "the broker's folder is there")


def loads_weights(shell: CommandLine, demo: Running) -> None:
    demo.wait_for("loading minilm")


def runs(shell: CommandLine, demo: Running) -> None:
    demo.wait_for("worker ready")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [has_begun, starts_redis, loads_weights, runs])
def test_ended_at_any_moment_it_leaves_nothing_behind(shell: CommandLine, moment: Moment, number: int) -> None:
    """Which the fixture checks: no process, no file."""
    with shell.running("demo") as demo:
        moment(shell, demo)

        code = demo.stop(number)

    # Until our first line runs Python itself ends by the signal, or with 1 where it was importing its own library.
    early = (-number, 1) if moment is has_begun else (-number,)
    assert code in (128 + number, *early)
    if moment is not has_begun:
        assert code == 128 + number
        assert "Traceback" not in demo.printed
