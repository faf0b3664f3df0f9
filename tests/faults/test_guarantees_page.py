"""docs/guarantees.md names a test for each line: each of them exists, and no test of a fault is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.faults.stage import ROOT

TESTS = ROOT / "tests"
PAGE = (ROOT / "docs" / "guarantees.md").read_text()


def named() -> set[str]:
    return set(re.findall(r"`(\w+/\w+\.py::test_\w+)`", PAGE))


def found_in(file: Path) -> Iterator[str]:
    place = file.relative_to(TESTS)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield f"{place}::{node.name}"


def test_each_test_on_the_page_exists() -> None:
    files = {TESTS / name.partition("::")[0] for name in named()}

    assert named() - {test for file in files for test in found_in(file)} == set()


def test_each_test_of_a_fault_is_on_the_page() -> None:
    files = sorted(set((TESTS / "faults").glob("test_*.py")) - {Path(__file__)})

    assert {test for file in files for test in found_in(file)} - named() == set()


def test_each_promise_has_a_test() -> None:
    promises = PAGE.partition("## What is guaranteed")[2].partition("## What is not")[0]

    bare = [line for line in re.split(r"\n- ", promises)[1:] if "::test_" not in line]
    assert bare == []
