"""Data sets to score, and how to score them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from inference_worker.scoring.progress import open_progress
from inference_worker.scoring.run import Ended, Options, run

MODELS = str(Path(__file__).parent / "models.py")
Score = Callable[..., Ended]


@pytest.fixture
def score(tmp_path: Path) -> Score:
    """Score files by a model of models.py in this process, into the folder `out`."""

    def score(model: str, *inputs: str | Path, to: str = "out", **options: Any) -> Ended:
        wanted = Options(model, tuple(map(str, inputs)), str(tmp_path / to), local=MODELS, threads=1, **options)
        return run(wanted, open_progress("none"))

    return score


def write(path: Path, **columns: Any) -> Path:
    """A Parquet file."""
    pa.parquet.write_table(pa.table(columns), path)
    return path


def results(folder: Path) -> pa.Table:
    """All rows of a folder of results, in order."""
    return pa.concat_tables([pa.parquet.read_table(path) for path in sorted(folder.rglob("*.parquet"))])


def contents(folder: Path) -> dict[str, bytes]:
    """The files of results by name; what tells of the run itself left out."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("_")}


def texts(count: int) -> list[str]:
    """Of many lengths, in no order."""
    return [f"{number:05d} " + "x" * (number * 7919 % 97) for number in range(count)]
