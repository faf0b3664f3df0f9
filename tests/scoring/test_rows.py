"""Rows that do not fit: a whole column is told before anything runs, a row is kept with its error."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from common.errors import ConfigError
from inference_worker.scoring.flow import RowFailed
from inference_worker.scoring.job import TooManyErrors
from inference_worker.scoring.readers import Unreadable
from tests.scoring.conftest import Score, results, write


def test_a_row_that_the_model_refuses_costs_only_itself(tmp_path: Path, score: Score) -> None:
    numbers = [number if number != 13 else -1 for number in range(40)]

    ended = score("square", write(tmp_path / "data.parquet", number=numbers))

    table = results(tmp_path / "out")
    assert table["square"].to_pylist() == [number**2 if number >= 0 else None for number in numbers]
    [error] = [one for one in table["_errors"].to_pylist() if one is not None]
    assert "a negative number is refused" in error
    assert ended.manifest["errors"] == 1


def test_a_row_that_is_no_number_or_null_is_told_by_its_column(tmp_path: Path, score: Score) -> None:
    (tmp_path / "data.csv").write_text("n,word\n1,a\nseven,b\n,c\n4,d\n")

    score("square", tmp_path / "data.csv", mapping={"number": "n"}, keep=("word",))

    table = results(tmp_path / "out")
    assert table["square"].to_pylist() == [1, None, None, 16]
    assert table["word"].to_pylist() == ["a", "b", "c", "d"]
    assert table["_errors"].to_pylist()[1] == "column 'n': 'seven' is no INT64 for input number: INT64[]"
    assert "column 'n'" in table["_errors"].to_pylist()[2]


def test_a_vector_of_another_length_is_told_by_its_row(tmp_path: Path, score: Score) -> None:
    vectors = pa.array([[1.0, 2.0, 3.0], [1.0], None, [4.0, 5.0, 6.0]], pa.list_(pa.float64()))

    score("double", write(tmp_path / "data.parquet", x=vectors))

    table = results(tmp_path / "out")
    assert table["y"].to_pylist() == [[2, 4, 6], None, None, [8, 10, 12]]
    assert table["_errors"].to_pylist()[1:3] == [
        "column 'x': has 1 numbers; input x: FP32[3] takes 3",
        "column 'x': is null",
    ]


def test_a_line_that_is_no_json_is_a_row_of_nulls(tmp_path: Path, score: Score) -> None:
    (tmp_path / "data.jsonl").write_text('{"number": 2}\n{"num\n{"number": 3}\n')

    score("square", tmp_path / "data.jsonl")

    assert results(tmp_path / "out")["square"].to_pylist() == [4, None, 9]


def test_a_line_that_nests_deeper_than_any_reader_is_a_row_of_nulls(tmp_path: Path, score: Score) -> None:
    deep = '{"number": ' + "[" * 100_000 + "]" * 100_000 + "}"
    (tmp_path / "data.jsonl").write_text(f'{{"number": 2}}\n{deep}\n{{"number": 3}}\n')

    score("square", tmp_path / "data.jsonl")

    assert results(tmp_path / "out")["square"].to_pylist() == [4, None, 9]


def test_a_value_of_another_type_costs_its_row_and_not_what_stands_beside_it(tmp_path: Path, score: Score) -> None:
    (tmp_path / "data.jsonl").write_text(
        '{"number": 2, "id": "a"}\n{"number": "x", "id": "b"}\n{"number": 3, "id": "c"}'
    )

    score("square", tmp_path / "data.jsonl", keep=("id",))

    table = results(tmp_path / "out")
    assert table["square"].to_pylist() == [4, None, 9]
    assert table["id"].to_pylist()[::2] == ["a", "c"]


def test_skip_leaves_bad_rows_out(tmp_path: Path, score: Score) -> None:
    score("square", write(tmp_path / "data.parquet", number=[1, -2, 3]), errors="skip", keep=("number",))

    assert results(tmp_path / "out").to_pydict() == {"number": [1, 3], "square": [1, 9]}


def test_fail_ends_at_the_first_bad_row_and_names_it(tmp_path: Path, score: Score) -> None:
    with pytest.raises(RowFailed, match=r"row 1 of 'data': model_error: .*negative"):
        score("square", write(tmp_path / "data.parquet", number=[1, -2, 3]), errors="fail")


def test_more_errors_than_allowed_end_the_job(tmp_path: Path, score: Score) -> None:
    path = write(tmp_path / "data.parquet", number=[-1] * 5)

    with pytest.raises(TooManyErrors, match=r"5 rows failed, and --max-errors allows 4; most often: .*negative"):
        score("square", path, max_errors=4)
    assert score("square", path, to="other", max_errors=5).manifest["errors"] == 5


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "no column for the input number: INT64\\[\\]; the columns are word, other: say --input number=COLUMN"),
        ({"mapping": {"number": "word"}}, "column 'word', row 0: 'a' is no INT64 for input number"),
        ({"mapping": {"numbr": "word"}}, "has no input 'numbr'; it takes number"),
        ({"mapping": {"number": "other"}, "outputs": ("cube",)}, "has no output 'cube'; it gives square"),
        ({"mapping": {"number": "other"}, "keep": ("id",)}, "no column 'id' to keep; the columns are word, other"),
    ],
)
def test_what_cannot_be_right_is_told_before_anything_runs(tmp_path: Path, score: Score, options, told: str) -> None:
    path = write(tmp_path / "data.parquet", word=["a", "b"], other=[1, 2])

    with pytest.raises(ConfigError, match=told):
        score("square", path, **options)
    assert not (tmp_path / "out").exists()


def test_a_broken_file_ends_the_job_and_can_be_passed_over(tmp_path: Path, score: Score) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name, number in (("a", 1), ("c", 3)):
        (data / f"{name}.jsonl").write_text(json.dumps({"number": number}))
    (data / "b.jsonl.gz").write_bytes(b"\x1f\x8bno gzip")

    with pytest.raises(Unreadable, match=r"b\.jsonl\.gz' cannot be read as jsonl"):
        score("square", data)
    ended = score("square", data, skip_files=True)

    assert results(tmp_path / "out")["square"].to_pylist() == [1, 9]
    assert [path.rpartition("/")[2] for path in ended.manifest["unreadable"]] == ["b.jsonl.gz"]


def test_vectors_of_any_length_run_with_those_of_their_own(tmp_path: Path, score: Score) -> None:
    """A request's rows have one shape; which rows come together is seen in nobody's result."""
    vectors = pa.array([[1.0], [2.0, 5.0], None, [], [3.0], [4.0, 9.0]], pa.list_(pa.float32()))

    score("most", write(tmp_path / "data.parquet", x=vectors))

    table = results(tmp_path / "out")
    assert table["most"].to_pylist() == [1, 5, None, None, 3, 9]
    assert table["doubled"].to_pylist() == [[2], [4, 10], None, None, [6], [8, 18]]
    assert table["_errors"].to_pylist()[2] == "column 'x': is null"
