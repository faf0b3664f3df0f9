"""docs/tutorial.md, run from its first line to its last: each file written, each command run, each output compared."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.support.command import ROOT, CommandLine, Running, command_line
from tests.support.http import ask
from tests.tour.pages import Step, steps

PAGE = ROOT / "docs" / "tutorial.md"
#: Commands that a reader leaves running, and what he waits for.
STAYS = {"up": (" takes requests", " serves "), "worker": (" serves ",)}
#: What each line begins with where it goes to a file; a reader has a terminal.
TIME = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ ", re.M)


class Reader:
    """Does what the page says, in a folder of his own; `up` takes a port that is free here."""

    def __init__(self, shell: CommandLine, terminals: ExitStack) -> None:
        self._shell = shell
        self._terminals = terminals
        self._running: list[Running] = []
        self._address = ""

    def do(self, step: Step) -> None:
        if step.path:
            path = self._shell.folder / step.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.text)
            return
        printed = self._run(step)
        assert step.shows(printed), f"$ {step.command}\n{printed}\nis not what the page shows:\n{step.text}"

    def end(self) -> None:
        """Ctrl-C in each terminal, the last one first."""
        while self._running:
            assert self._running.pop().stop(signal.SIGINT) == 0

    def _run(self, step: Step) -> str:
        program, *rest = step.words
        if program == "inference-worker":
            return self._leave_running(rest) if rest[0] in STAYS else self._ask(rest)
        if program == "curl":
            return self._curl(rest)
        command = [sys.executable, *rest] if program == "python" else step.words
        done = subprocess.run(
            command,
            cwd=self._shell.folder,
            env=self._shell.environment({}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def _ask(self, arguments: list[str]) -> str:
        done = self._shell.run(*arguments)
        return done.out + done.err

    def _leave_running(self, arguments: list[str]) -> str:
        if arguments[0] == "up":
            # The page has told to end the one before.
            self.end()
        told = [":0" if one == ":8000" else one for one in arguments]
        running = self._terminals.enter_context(self._shell.running(*told))
        for text in STAYS[arguments[0]]:
            running.wait_for(text)
        self._running.append(running)
        if arguments[0] == "up":
            self._address = re.findall(r"http://(\S+) takes", running.printed)[0]
        return TIME.sub("", running.printed)

    def _curl(self, arguments: list[str]) -> str:
        """`curl --json BODY URL`, by a client that is here in any case."""
        option, body, url = arguments
        assert option == "--json"
        path = url.removeprefix("localhost:8000")
        return ask(self._address, "POST", path, body.encode(), content_type="application/json").body.decode()


def test_the_tutorial_runs_and_prints_what_it_shows(tmp_path: Path) -> None:
    with command_line(tmp_path) as shell, ExitStack() as terminals:
        reader = Reader(shell, terminals)
        done = [reader.do(step) for step in steps(PAGE)]
        reader.end()

    assert len(done) > 20
