"""docs/http.md, run: its first commands, and that it names every status."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gateway.http.status import STATUS
from tests.support.command import MODELS, ROOT, command_line
from tests.support.http import ask

PAGE = (ROOT / "docs" / "http.md").read_text("utf-8")


def commands() -> list[list[str]]:
    lines = re.findall(r"^    (inference-worker .*)$", PAGE.replace("\\\n", " "), re.M)
    return [shlex.split(line)[1:] for line in lines]


def test_up_with_http_answers_and_ends(tmp_path: Path) -> None:
    up = commands()[0]
    with command_line(tmp_path) as shell:
        (shell.folder / "mymodel.py").write_text(MODELS.read_text("utf-8"))
        # The page's own command, on a port that is free here.
        with shell.running(*[":0" if one == ":8000" else one for one in up], "--device", "cpu") as running:
            running.wait_for(" serves ")
            running.wait_for(" takes requests")
            address = re.search(r"http://(\S+) takes", running.printed)
            assert address is not None

            said = ask(address[1], "POST", "/models/shout", {"text": "hello"})
            page = ask(address[1], "GET", "/docs")

            assert running.stop() == 0
    assert said.json["outputs"] == {"output": "HELLO"}
    assert b'<script src="/docs.js">' in page.body


def test_the_keys_commands_run(tmp_path: Path) -> None:
    with command_line(tmp_path) as shell:
        told = [shell.run(*one) for one in commands() if one[0] == "keys" and "keys.json" in one]

    assert [one.code for one in told] == [0, 0]
    assert told[0].out.startswith("iw_")
    assert "acme" in told[1].out
    assert "minilm*; 32 at a time; up to normal" in told[1].out


@pytest.mark.parametrize("code", STATUS)
def test_every_code_stands_beside_its_status(code: str) -> None:
    if code == "cancelled":
        return  # Nobody reads it: the client has gone.
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| {STATUS[code]} |")]

    assert any(code in row for row in rows)
