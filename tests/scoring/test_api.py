"""`score(data, model)`: what comes back is of the kind that was given."""

from __future__ import annotations

from collections.abc import Iterator

import pandas
import polars
import pyarrow as pa
import pytest

from common.errors import ConfigError
from inference_worker.scoring import score
from inference_worker.scoring.flow import RowFailed
from tests.scoring.conftest import MODELS

NUMBERS = {"number": [3, 1, 2]}
SQUARES = {"number": [3, 1, 2], "square": [9, 1, 4], "_errors": [None, None, None]}


def test_a_table_comes_back_as_a_table() -> None:
    assert score(pa.table(NUMBERS), "square", local=MODELS).to_pydict() == SQUARES


def test_a_pandas_frame_comes_back_with_its_index() -> None:
    frame = pandas.DataFrame(NUMBERS, index=["c", "a", "b"])

    scored = score(frame, "square", local=MODELS)

    assert isinstance(scored, pandas.DataFrame)
    assert scored["square"].to_dict() == {"c": 9, "a": 1, "b": 4}


def test_a_polars_frame_comes_back_as_one() -> None:
    scored = score(polars.DataFrame(NUMBERS), "square", local=MODELS)

    assert isinstance(scored, polars.DataFrame)
    assert scored.to_dict(as_series=False) == SQUARES


def test_an_iterable_is_scored_as_it_is_read() -> None:
    texts = iter(["one", "three"])

    scored = score(texts, "shout", local=MODELS, outputs=["letters"])

    assert isinstance(scored, Iterator)
    assert list(scored) == [
        {"value": "one", "letters": 3, "_errors": None},
        {"value": "three", "letters": 5, "_errors": None},
    ]


def test_maps_are_rows_with_their_columns() -> None:
    rows = [{"id": 7, "n": 2}, {"id": 8, "n": -2}]

    scored = list(score(rows, "square", local=MODELS, inputs={"number": "n"}, keep=["id"], on_error="skip"))

    assert scored == [{"id": 7, "square": 4}]


def test_a_bad_row_raises_where_that_is_asked_for() -> None:
    with pytest.raises(RowFailed, match="a negative number is refused"):
        score(pa.table({"number": [-1]}), "square", local=MODELS, on_error="fail")


@pytest.mark.parametrize("data", [7, "text", {"number": [1]}])
def test_what_is_no_data_set_is_refused(data: object) -> None:
    with pytest.raises(ConfigError, match="data must be a pyarrow Table"):
        score(data, "square", local=MODELS)
