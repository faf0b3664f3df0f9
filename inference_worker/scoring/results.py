"""A shard's results: outputs gathered chunk by chunk into their rows, and then as a table beside what is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.errors import ConfigError
from common.tensor import Array, numpy_dtype
from inference_worker.models.spec import TensorSpec
from inference_worker.scoring.chunks import Indices
from inference_worker.scoring.facts import Facts

ERRORS = "_errors"


class Gathered:
    """Room for a shard's outputs. Rows that no chunk has filled are null in the end."""

    def __init__(self, outputs: Sequence[TensorSpec], rows: int) -> None:
        self._outputs = outputs
        self._values = {one.name: _room(one, rows) for one in outputs}
        self._filled = np.zeros(rows, bool)
        self.errors: dict[int, str] = {}

    def fill(self, rows: Indices, outputs: Mapping[str, Array]) -> None:
        for one in self._outputs:
            values = self._values[one.name]
            if isinstance(values, list):
                for row, value in zip(rows.tolist(), outputs[one.name], strict=True):
                    values[row] = value
            else:
                values[rows] = outputs[one.name]
        self._filled[rows] = True

    def fail(self, row: int, why: str) -> None:
        self.errors[row] = why

    def values(self, name: str) -> Array | list[Array | None]:
        """One output's rows as they are, for whoever writes no table."""
        return self._values[name]

    def columns(self) -> dict[str, pa.Array]:
        """The outputs as Arrow columns: embeddings as fixed-size lists."""
        missing = ~self._filled
        return {one.name: _column(one, self._values[one.name], missing) for one in self._outputs}


def chosen_outputs(facts: Facts, names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """These outputs in this order; all where none are named. Raises ConfigError."""
    known = {one.name: one for one in facts.outputs}
    for name in names:
        if name not in known:
            raise ConfigError(f"model '{facts.label}' has no output '{name}'; it gives {', '.join(known)}")
    return tuple(known[name] for name in names) if names else facts.outputs


def kept_columns(names: Sequence[str], there: Sequence[str], outputs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """The input's columns that stand beside the results; `*` is all of them. Raises ConfigError."""
    kept = tuple(dict.fromkeys(column for name in names for column in (there if name == "*" else [name])))
    for column in kept:
        if column not in there:
            raise ConfigError(f"there is no column '{column}' to keep; the columns are {', '.join(there)}")
        if column == ERRORS or column in {one.name for one in outputs}:
            raise ConfigError(f"the kept column '{column}' has the name of a result; leave it out of --keep")
    return kept


def table_of(kept: pa.Table, gathered: Gathered, errors: str) -> pa.Table:
    """The shard's rows, one for one and in order. `errors`: "keep" adds their column, "skip" drops such rows."""
    columns: dict[str, Any] = {name: kept.column(name) for name in kept.column_names}
    columns.update(gathered.columns())
    rows = len(next(iter(columns.values())))
    if errors == "keep":
        why = [gathered.errors.get(row) for row in range(rows)] if gathered.errors else pa.nulls(rows, pa.string())
        columns[ERRORS] = pa.array(why, pa.string()) if isinstance(why, list) else why
    table = pa.table(columns)
    if errors == "skip" and gathered.errors:
        good = np.ones(rows, bool)
        good[list(gathered.errors)] = False
        table = table.filter(pa.array(good))
    return table


def distribution(table: pa.Table, names: Sequence[str], most: int = 2048) -> dict[str, list[float]]:
    """Some values of each numeric output, of lists their lengths as vectors: for pictures, not for sums."""
    step = max(1, table.num_rows // most)
    found: dict[str, list[float]] = {}
    for name in names:
        column = table.column(name)[::step] if step > 1 else table.column(name)
        if pa.types.is_fixed_size_list(column.type):
            width = column.type.list_size
            flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
            norms = np.linalg.norm(flat.reshape(-1, width).astype(np.float64), axis=1)
            found[f"|{name}|"] = norms.tolist()
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            found[name] = pc.drop_null(column).to_numpy().astype(float).tolist()
    return found


def _room(one: TensorSpec, rows: int) -> Array | list[Any]:
    if -1 in one.shape or one.dtype == "BYTES":
        return [None] * rows
    return np.zeros((rows, *one.shape), numpy_dtype(one.dtype))


def arrow_type(one: TensorSpec) -> pa.DataType:
    """The type of an output's column."""
    kind = pa.string() if one.dtype == "BYTES" else pa.from_numpy_dtype(numpy_dtype(one.dtype))
    if not one.shape:
        return kind
    if -1 not in one.shape:
        return pa.list_(kind, prod(one.shape))
    for _ in one.shape:
        kind = pa.list_(kind)
    return kind


def _column(one: TensorSpec, values: Array | list[Any], missing: Array) -> pa.Array:
    kind = arrow_type(one)
    if isinstance(values, list):
        numbers = one.shape == (-1,) and one.dtype != "BYTES"
        return _lists(one, values) if numbers else pa.array([_plain(value) for value in values], kind)
    mask = pa.array(missing) if missing.any() else None
    if not one.shape:
        return pa.array(values, kind, mask=missing if missing.any() else None)
    flat = pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=mask)


def _lists(one: TensorSpec, values: list[Any]) -> pa.Array:
    """Rows of numbers of any length: their bytes one after the other, without a Python object for each number."""
    lengths = np.array([0 if value is None else len(value) for value in values], np.int32)
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    filled = [value for value in values if value is not None]
    numbers = np.concatenate(filled) if filled else np.empty(0, numpy_dtype(one.dtype))
    mask = pa.array([value is None for value in values]) if len(filled) < len(values) else None
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(numbers), mask=mask)


def _plain(value: Any) -> Any:
    """A row's value as Python has it; text that came as bytes is UTF-8."""
    value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return [_plain(one) for one in value] if isinstance(value, list) else value
