"""What the source archive and the wheel hold, as the build backend collects it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hatchling.builders.plugin.interface import BuilderInterface
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]


def files(builder: type[BuilderInterface]) -> set[str]:
    """Their paths in what `builder` makes."""
    one = builder(str(ROOT))
    with one.config.set_build_data({"force_include": {}, "force_include_editable": {}, "artifacts": []}):
        return {file.distribution_path for file in one.recurse_included_files()}


@pytest.mark.parametrize(
    "file",
    [
        "Makefile",
        "Procfile",
        "constraints.txt",
        "CONTRIBUTING.md",
        "README.md",
        "benchmarks/__main__.py",
        "deploy/redis/single.conf",
        "docs/models.md",
        "examples/models/minilm/1/model.toml",
        "tests/unit/test_packaging.py",
    ],
)
def test_the_source_archive_holds_what_its_readme_and_its_makefile_need(file: str) -> None:
    assert file in files(SdistBuilder)


@pytest.mark.parametrize(
    "file",
    [
        "common/lua/submit.lua",
        "gateway/py.typed",
        "inference_worker/examples/sentences.txt",
        "inference_worker/examples/models/sentiment/1/model.toml",
    ],
)
def test_the_wheel_holds_what_its_code_reads(file: str) -> None:
    assert file in files(WheelBuilder)


def test_nothing_that_python_caches_is_shipped() -> None:
    assert not [file for builder in (SdistBuilder, WheelBuilder) for file in files(builder) if "__pycache__" in file]
