"""`dead`: an operator looks at what workers died of, and puts it back when the cause is gone."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from tests.support.command import CommandLine

MODEL = """
import os
from pathlib import Path
from inference_worker import model

@model(inputs={"x": "FP32[]"})
def fragile(x):
    if x[0] < 0 and not Path("mended").exists():
        os._exit(9)
    return x
"""


def test_a_request_that_kills_workers_is_listed_shown_and_put_back(shell: CommandLine) -> None:
    (shell.folder / "fragile.py").write_text(MODEL)
    with shell.running("up", "fragile.py", "--device", "cpu", "--max-deliveries", "1") as up:
        up.wait_for(" serves ")
        died = shell.run("infer", "fragile", "--json", "-1.0")
        listed = shell.run("dead", "list", "--model", "fragile", "--json")
        letter = json.loads(listed.out)
        seen = shell.run("dead", "list")
        shown = shell.run("dead", "show", letter["id"])
        (shell.folder / "mended").touch()
        retried = shell.run("dead", "retry", letter["id"])
        left = shell.run("dead", "list")
        assert up.stop() == 0

    assert died.code != 0
    assert "workers died" in letter["reason"]
    died = datetime.fromtimestamp(letter["died_ms"] // 1000, UTC)
    assert f"  {died:%Y-%m-%d %H:%M:%S} UTC  fragile" in seen.out
    assert json.loads(shown.out)["request"]["model"] == "fragile"
    assert retried.out == "put back 1 of 1 letters\n"
    assert left.out == ""


def test_all_letters_go_only_where_that_is_said(served: CommandLine) -> None:
    done = served.run("dead", "purge")

    assert done.code == 2
    assert "--all" in done.err


def test_a_malformed_age_is_told_with_its_forms(served: CommandLine) -> None:
    done = served.run("dead", "list", "--older-than", "soon")

    assert done.code == 2
    assert "90s, 10m, 2h or 1d" in done.err
