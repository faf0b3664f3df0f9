"""A producer in Node, written from docs/protocol.md alone, against a real server and a real worker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent / "node"
INSTALL_S, RUN_S = 100, 60


@pytest.fixture(scope="session")
def node_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The producer with its packages, as package-lock.json pins them. Without Node: skipped, but never in CI."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        reason = f"{' and '.join(missing)} not found: install Node 20 or newer to run the producer in Node"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    project = tmp_path_factory.mktemp("interop") / "node"
    shutil.copytree(HERE, project, ignore=shutil.ignore_patterns("node_modules"))
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=project, timeout_s=INSTALL_S)
    return project


@pytest.fixture
def report(node_project: Path, redis_url: str, served_pool: str) -> dict[str, Any]:
    """What the producer printed."""
    printed = run("node", "producer.mjs", redis_url, served_pool, cwd=node_project, timeout_s=RUN_S)
    parsed: dict[str, Any] = json.loads(printed)
    return parsed


def test_the_pinned_packages_name_no_registry() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text("utf-8"))

    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []


def test_a_producer_in_node_gets_its_results_and_clear_errors(report: dict[str, Any]) -> None:
    check_answers(report["answers"])
    check_errors(report["errors"])


def check_answers(answers: dict[str, Any]) -> None:
    doubled = {"dtype": "FP32", "shape": [4], "values": [2, -4, 6, 1]}
    for case in ("one item", "urgent", "by payload key", "every field", "by reply key"):
        assert answers[case] == {"model": "double", "version": "1", "y": doubled}, case
    assert answers["two rows"]["y"] == {"dtype": "FP32", "shape": [2, 2], "values": [2, 4, 6, 8]}
    assert answers["empty"]["y"] == {"dtype": "FP32", "shape": [0], "values": []}
    assert answers["strings"]["loud"] == {"dtype": "BYTES", "shape": [2], "values": ["GRÖSSE", "😀 OK"]}
    assert answers["one string"]["loud"] == {"dtype": "BYTES", "shape": [], "values": ["HELLO"]}
    assert answers["embedding"]["embedding"]["values"] == [1, -2, 3, 0.5, 0, 0, 0, 0]
    assert answers["sentiment"]["scores"]["values"] == [0.625, 0.375]
    assert answers["large"] == {"by_key": True, "length": 20_000, "right": True}
    assert answers["timings"]["batch_rows"] == 1
    assert answers["cached"]["first"] == answers["cached"]["stored"] == [2, -4, 6, 1]
    # The model's cache TTL, so the worker computed the same digest.
    assert 200 < answers["cached"]["ttl_s"] <= 300


def check_errors(errors: dict[str, Any]) -> None:
    expected = {
        "wrong byte count": ("invalid_request", "inputs.x.data must hold 12 bytes for FP32 [3]; got 8"),
        "unknown dtype": ("invalid_request", "inputs.x.dtype must be one of BOOL"),
        "wrong dtype": ("invalid_request", "input 'x' of model 'double' must be FP32; got BYTES"),
        "wrong shape": ("invalid_request", "must have shape [-1] or [rows, -1]; got [1, 1, 2]"),
        "no rows": ("invalid_request", "a request must have 1 to 65536 rows; got 0"),
        "absurd shape": ("invalid_request", "inputs.x.shape must hold integers from 0 to 2147483647; got -1"),
        "wrong input": ("invalid_request", "model 'double' takes the inputs x; got z"),
        "unknown field": ("invalid_request", "unknown field 'priority'"),
        "missing field": ("invalid_request", "inputs is missing"),
        "wrong version of the protocol": ("invalid_request", "v must be 1; got 2"),
        "unknown model": ("model_not_found", "'nobody'"),
        "unknown version": ("model_not_found", "model 'double' has no version '99' here; there is 1"),
        "unknown output": ("invalid_request", "model 'double' has no output 'z'; it gives y"),
        "no time": ("invalid_request", "timeout_ms must be an integer from 1 to 604800000; got 0"),
        "not a number": ("invalid_request", "parameters.threshold must be a finite number; got nan"),
        "failing model": ("model_error", "a negative number has no real root"),
        "bad id": ("invalid_request", "id must be 1 to 128 letters"),
        "bad reply_to": ("invalid_request", "reply_to must start with 'iw:{"),
        "payload that is not there": ("invalid_request", "has expired or was never stored"),
    }
    assert errors.keys() == expected.keys()
    for case, (code, part) in expected.items():
        assert errors[case]["code"] == code, case
        assert part in errors[case]["message"], case
        assert errors[case]["retryable"] is False, case
    assert [case for case, error in errors.items() if error.get("id_comes_back") is False] == ["bad id"]


def run(*command: str, cwd: Path, timeout_s: float) -> str:
    """The command's standard output. Its end within the time, with 0, or an error that shows what it printed."""
    done = subprocess.run(command, cwd=cwd, timeout=timeout_s, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
