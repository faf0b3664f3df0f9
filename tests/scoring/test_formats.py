"""Every format that data comes in, and every format that results go out in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from common.errors import ConfigError
from tests.scoring.conftest import MODELS, Score, results, write
from tests.support.command import CommandLine

NUMBERS = list(range(20))
SQUARES = [number * number for number in NUMBERS]


def _parquet(folder: Path) -> Path:
    return write(folder / "data.parquet", number=NUMBERS)


def _arrow(folder: Path) -> Path:
    pyarrow.feather.write_feather(pa.table({"number": NUMBERS}), folder / "data.feather", chunksize=6)
    return folder / "data.feather"


def _csv(folder: Path) -> Path:
    pyarrow.csv.write_csv(pa.table({"number": NUMBERS, "word": ["a,\n"] * 20}), folder / "data.csv")
    return folder / "data.csv"


def _jsonl(folder: Path) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps({"number": number}) + "\n" for number in NUMBERS))
    return path


def _compressed(folder: Path) -> Path:
    path = folder / "data.jsonl.gz"
    path.write_bytes(gzip.compress(_jsonl(folder).read_bytes()))
    return path


def _npy(folder: Path) -> Path:
    np.save(folder / "data.npy", np.array(NUMBERS))
    return folder / "data.npy"


def _npz(folder: Path) -> Path:
    np.savez(folder / "data.npz", number=np.array(NUMBERS))
    return folder / "data.npz"


@pytest.mark.parametrize("make", [_parquet, _arrow, _csv, _jsonl, _compressed, _npy, _npz])
def test_each_format_is_read_row_by_row_and_in_order(tmp_path: Path, score: Score, make) -> None:
    ended = score("square", make(tmp_path), shard_rows=7)

    assert results(tmp_path / "out")["square"].to_pylist() == SQUARES
    assert ended.manifest["rows"] == 20
    assert len(ended.manifest["shards"]) == 3


def test_a_text_files_lines_are_rows(tmp_path: Path, score: Score) -> None:
    (tmp_path / "data.txt").write_bytes(b"one\r\ntw\xc3\xb6\n\nlast")

    score("shout", tmp_path / "data.txt", keep=("*",))

    assert results(tmp_path / "out").drop_columns("_errors").to_pydict() == {
        "text": ["one", "twö", "", "last"],
        "loud": ["ONE", "TWÖ", "", "LAST"],
        "letters": [3, 3, 0, 4],
    }


def test_standard_input_is_read_too(shell: CommandLine) -> None:
    arguments = ("score", "shout", "-", "--to", "out", "--local", MODELS, "--threads", "1", "--format", "jsonl")

    done = shell.run(*arguments, stdin="a\nb\n")

    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (shell.folder / "out" / "stdin-00000.jsonl").read_text().splitlines()]
    assert rows == [
        {"loud": "A", "letters": 1, "_errors": None},
        {"loud": "B", "letters": 1, "_errors": None},
    ]


def test_a_folder_of_partitions_gives_one_like_it(tmp_path: Path, score: Score) -> None:
    for year in (2024, 2025):
        (tmp_path / "data" / f"year={year}").mkdir(parents=True)
        write(tmp_path / "data" / f"year={year}" / "a.parquet", number=[year])
    (tmp_path / "data" / "_SUCCESS").touch()

    score("square", tmp_path / "data")

    table = pa.parquet.read_table(tmp_path / "out", partitioning="hive")
    assert dict(zip(table["year"].to_pylist(), table["square"].to_pylist(), strict=True)) == {
        2024: 2024**2,
        2025: 2025**2,
    }


def test_a_folder_of_pictures_is_decoded_to_the_size_that_the_model_takes(tmp_path: Path, score: Score) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for shade in (0, 255):
        Image.new("RGB", (9, 5), (shade, shade, shade)).save(tmp_path / "pictures" / f"{shade:03d}.png")
    (tmp_path / "pictures" / "999.png").write_bytes(b"no picture")

    score("light", tmp_path / "pictures", mapping={"picture": "bytes"}, keep=("path",))

    table = results(tmp_path / "out")
    assert table["path"].to_pylist() == ["000.png", "255.png", "999.png"]
    assert table["light"].to_pylist() == [0.0, 1.0, None]
    assert "is no picture" in table["_errors"][2].as_py()


@pytest.mark.parametrize("form", ["arrow", "jsonl", "csv", "npy"])
def test_each_format_is_written_one_for_one(tmp_path: Path, score: Score, form: str) -> None:
    path = write(tmp_path / "data.parquet", x=pa.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], pa.list_(pa.float32(), 3)))

    score("double", path, write_as=form)

    assert _read(tmp_path / "out", form) == [[2, 4, 6], [8, 10, 12]]


def _read(out: Path, form: str) -> list[list[float]]:
    if form == "npy":
        assert np.load(out / "data-00000.total.npy").tolist() == [6, 15]
        return np.load(out / "data-00000.y.npy").tolist()
    if form == "jsonl":
        return [json.loads(line)["y"] for line in (out / "data-00000.jsonl").read_text().splitlines()]
    if form == "csv":
        return [json.loads(one) for one in pyarrow.csv.read_csv(out / "data-00000.csv")["y"].to_pylist()]
    return pa.ipc.open_file(out / "data-00000.arrow").read_all()["y"].to_pylist()


def test_an_embedding_is_a_fixed_size_list(tmp_path: Path, score: Score) -> None:
    np.save(tmp_path / "data.npy", np.ones((4, 3), np.float32))

    score("double", tmp_path / "data.npy", outputs=("y",))

    assert results(tmp_path / "out").schema.field("y").type == pa.list_(pa.float32(), 3)


def test_a_npy_file_of_text_is_refused_before_anything_runs(tmp_path: Path, score: Score) -> None:
    (tmp_path / "data.txt").write_text("a\n")

    with pytest.raises(ConfigError, match=r"\.npy file holds numbers of one shape, and the output 'loud' is string"):
        score("shout", tmp_path / "data.txt", write_as="npy")
    assert not (tmp_path / "out").exists()


def test_an_empty_file_gives_a_manifest_and_no_rows(tmp_path: Path, score: Score) -> None:
    (tmp_path / "data.txt").touch()

    assert score("shout", tmp_path / "data.txt").manifest["rows"] == 0
