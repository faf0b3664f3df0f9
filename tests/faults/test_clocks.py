"""Wall clocks may jump: leases and deadlines follow Redis's clock, and all else the monotonic one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.faults.stage import ROOT, Stage

#: Where the wall clock is read, and why that is right.
ALLOWED = {
    "common/logs.py": "when something happened, for whoever reads the log",
    "gateway/access/tokens.py": "tokens end on a date",
    "inference_worker/tracing.py": "when spans began and ended: collectors put those of all hosts together",
    "inference_worker/scoring/members.py": "when a host was heard last, for `score status`",
    "inference_worker/cli/top/__init__.py": "when a frame was drawn",
    "inference_worker/cli/doctor/__init__.py": "how far this host's clock is from Redis's",
    "gateway/access/guard.py": "API keys end on a date",
    "gateway/door/service.py": "when requests were answered, for dashboards",
    "inference_worker/clock.py": "a first guess of Redis's time, until the first answer from Redis",
    "inference_worker/supervision/supervisor.py": "when a worker was started and heard, for `status`",
    "inference_worker/cli/keys.py": "API keys end on a date",
    "inference_worker/cli/lines.py": "when something happened, for a person who reads the log",
    "inference_worker/cli/repository.py": "how long ago a model was used, for a person",
    "inference_worker/backends/onnx_prepared.py": "the age of files, which carry the wall clock's times",
}
#: Loaded by Python at its start: this process's wall clock then jumps by a day, back and forth, with each look at it.
JUMPING = """
import itertools
import time

DAY_S = 86_400.0
_jumps = itertools.cycle((0.0, DAY_S, -DAY_S))
_real = time.time
time.time = lambda: _real() + next(_jumps)
"""


def readers_of_the_wall_clock() -> Iterator[str]:
    for package in ("common", "gateway", "inference_worker"):
        for file in sorted((ROOT / package).rglob("*.py")):
            if any(map(_reads_it, ast.walk(ast.parse(file.read_text())))):
                yield str(file.relative_to(ROOT))


def _reads_it(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id="time"), attr="time" | "time_ns" | "localtime" | "gmtime" | "strftime"):
            return True
        case ast.Attribute(attr="now" | "utcnow" | "today", value=ast.Name(id="datetime" | "date")):
            return True
        case ast.ImportFrom(module="time", names=names):
            return any(name.name in ("time", "time_ns") for name in names)
    return False


def test_the_wall_clock_is_read_only_where_it_is_shown_or_compared_with_files() -> None:
    assert set(readers_of_the_wall_clock()) == ALLOWED.keys()


def test_a_host_whose_wall_clock_jumps_by_days_serves_and_keeps_deadlines(stage: Stage, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(JUMPING)
    stage.host(procs=2, environment={"PYTHONPATH": f"{clock}:{ROOT}"})
    with stage.client() as client:
        requests = ({"n": number, "act": ""} for number in range(500))

        answers = [int(answer["value"]) for answer in client.map("work", requests)]

    assert answers == [2 * number for number in range(500)]
    assert stage.letters() == []
    assert stage.again() == 0
