"""A page of docs/ as something that runs: its files, and its console blocks in their order."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.command import ROOT, CommandLine

#: A file's name in backquotes near the end of a paragraph, and then its text; or a console block.
_BLOCK = re.compile(
    r"`([\w/]+\.(?:py|toml|env))`[^`\n]*:\n\n```(?:python|toml|sh)\n(.*?)```|```console\n(.*?)```", re.S
)
_PLAIN = doctest.OutputChecker()


@dataclass(frozen=True, slots=True)
class Step:
    """What a reader does next: writes `text` into the file `path`, or runs `command` and sees `text`."""

    text: str
    path: str = ""
    command: str = ""

    @property
    def words(self) -> list[str]:
        return shlex.split(self.command)

    def shows(self, printed: str) -> bool:
        """Whether that is what the page shows; `...` stands for anything."""
        return _PLAIN.check_output(self.text, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


def steps(page: Path) -> Iterator[Step]:
    """In the page's order. Raises ValueError for a console block that does not begin with a command."""
    for path, text, console in _BLOCK.findall(page.read_text("utf-8")):
        if path:
            yield Step(text, path=path)
            continue
        first, *rest = re.split(r"^\$ ", console, flags=re.M)
        if first:
            raise ValueError(f"{page.name}: this console block does not begin with `$ `: {first!r}")
        for one in rest:
            command, _, shown = one.partition("\n")
            yield Step(shown, command=command)


def printed(shell: CommandLine, code: str) -> tuple[str, str]:
    """What a page's Python prints beside the shell's broker: (standard output, standard error)."""
    (shell.folder / "ask.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "ask.py"],
        cwd=shell.folder,
        env=shell.environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout, done.stderr
