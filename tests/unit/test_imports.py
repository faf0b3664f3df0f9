"""Which way imports go, and what importing a side must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("common", "gateway", "inference_worker")
#: What each may never import: its own kind's other side, and for `common` what only one side needs.
FORBIDDEN = {
    "common": {"gateway", "inference_worker", "torch", "onnxruntime", "transformers", "starlette", "uvicorn", "grpc"},
    "gateway": {"inference_worker", "torch", "onnxruntime", "transformers"},
    "inference_worker": {"gateway", "starlette", "uvicorn", "grpc"},
}
#: A command line alone may use both sides, and offline scoring, which is one for whole data sets.
COMMAND_LINES = ("cli.py", "cli/", "demo.py", "demo/", "scoring/")
#: On top of scoring: models in other engines' processes, and no client.
ON_SCORING = ("cli/", "scoring/", "integrations/")
#: The foreign modules that only these files of `common` may import.
ITS_FILES = {
    "prometheus_client": ("common/metrics/exposition.py",),
    "redis": ("common/aiolean.py", "common/connect.py", "common/lean.py"),
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """(line, module, whether for annotations only) of every import, in functions and under TYPE_CHECKING too."""
    for_annotations = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name, id(node) in for_annotations
        elif isinstance(node, ast.ImportFrom):
            # `from package import module` may name a module: the package's name is enough for the rule.
            yield node.lineno, "." * node.level + (node.module or ""), id(node) in for_annotations


def is_command_line(path: Path) -> bool:
    inside = path.relative_to(ROOT).as_posix().partition("/")[2]
    return inside.startswith(COMMAND_LINES)


def edges(package: str) -> Iterator[tuple[str, str, bool, Path]]:
    """(where, module, whether for annotations only, file) for each import in the package."""
    for path in sources(package):
        for line, module, for_annotations in imports_of(ast.parse(path.read_text("utf-8"))):
            yield f"{path.relative_to(ROOT)}:{line} imports {module}", module, for_annotations, path


def within(module: str, forbidden: set[str]) -> bool:
    return module.partition(".")[0] in forbidden


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_the_other_side(package):
    both_sides = set(PACKAGES)
    broken = [
        edge
        for edge, module, _, path in edges(package)
        if within(module, FORBIDDEN[package]) and not (is_command_line(path) and within(module, both_sides))
    ]

    assert broken == []


@pytest.mark.parametrize("package", PACKAGES)
def test_nobody_imports_a_command_line(package):
    broken = [
        edge
        for edge, module, _, path in edges(package)
        if within(module, set(PACKAGES)) and module.split(".")[1:2] in (["cli"], ["demo"]) and not is_command_line(path)
    ]

    assert broken == []


@pytest.mark.parametrize("package", PACKAGES)
def test_nobody_below_imports_offline_scoring(package):
    broken = [
        edge
        for edge, module, _, path in edges(package)
        if module.startswith(("inference_worker.scoring", "inference_worker.integrations"))
        and not path.relative_to(ROOT / package).as_posix().startswith(ON_SCORING)
    ]

    assert broken == []


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_are_absolute(package):
    assert [edge for edge, module, _, _ in edges(package) if module.startswith(".")] == []


@pytest.mark.parametrize("module", ITS_FILES)
def test_a_foreign_thing_stays_in_its_files(module):
    broken = [
        edge
        for package in PACKAGES
        for edge, imported, for_annotations, path in edges(package)
        if within(imported, {module}) and not for_annotations
        if path.relative_to(ROOT).as_posix() not in ITS_FILES[module]
    ]

    assert broken == []


def test_the_rule_sees_imports_in_functions_and_for_annotations():
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a.b\ndef f():\n    from c import d\n"

    assert list(imports_of(ast.parse(source))) == [(1, "typing", False), (3, "a.b", True), (5, "c", False)]


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["gateway", "common.protocol", "common.broker"])
def test_a_thin_producer_loads_neither_torch_nor_redis_nor_the_workers_side(module):
    loaded = run_python(f"import sys, {module}; print(*sys.modules)").split()

    assert module in loaded
    heavy = {"torch", "redis", "onnxruntime", "transformers", "inference_worker", "rich", "click"}
    assert heavy & set(loaded) == set()


@pytest.mark.parametrize("engine", ["ray", "dask", "spark"])
def test_a_model_in_another_engine_needs_no_client_and_no_redis(engine):
    code = f"import sys, inference_worker.integrations.{engine}, inference_worker.scoring.api; print(*sys.modules)"

    assert {"gateway", "redis"} & set(run_python(code).split()) == set()


def test_the_clients_are_importable_without_loading_redis():
    loaded = run_python("import sys; from gateway import AsyncClient, Client; print(*sys.modules)").split()

    assert {"torch", "redis", "inference_worker"} & set(loaded) == set()


@pytest.mark.parametrize("path", sorted(path for path in sources("common") if path.stem != "__init__"), ids=str)
def test_every_module_of_common_can_be_imported_first(path):
    """No module needs that another one was imported before it."""
    run_python(f"import {'.'.join(path.relative_to(ROOT).with_suffix('').parts)}")
