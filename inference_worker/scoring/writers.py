"""A shard's table as bytes of a file. The same table gives the same bytes: no time, no host, no path goes in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from common.errors import ConfigError
from common.tensor import Array
from inference_worker.scoring.results import ERRORS

SUFFIXES = {"parquet": ".parquet", "arrow": ".arrow", "jsonl": ".jsonl", "csv": ".csv", "npy": ".npy"}

#: Writes into an open binary file.
Write = Callable[[Any], None]


def files_of(table: pa.Table, form: str, name: str) -> Mapping[str, Write]:
    """The files of one shard: one of its name, and for .npy one for each column."""
    if form == "npy":
        return _npy_files(table, name)
    return {name + SUFFIXES[form]: lambda file: _WRITERS[form](table, file)}


def check_format(form: str, outputs: Mapping[str, pa.DataType], kept: Sequence[str]) -> None:
    """Raises ConfigError for columns that the format cannot hold."""
    if form != "npy":
        return
    if kept:
        raise ConfigError(f".npy files hold outputs alone; leave out --keep {','.join(kept)}, or write another format")
    for name, kind in outputs.items():
        number = kind.value_type if pa.types.is_fixed_size_list(kind) else kind
        if not (pa.types.is_integer(number) or pa.types.is_floating(number)):
            raise ConfigError(
                f"a .npy file holds numbers of one shape, and the output '{name}' is {kind}; leave it out by --output, "
                "or write another format"
            )


def _parquet(table: pa.Table, file: Any) -> None:
    # Numbers that a model computes hardly repeat: looking for those that do takes most of the time.
    words = [field.name for field in table.schema if pa.types.is_string(field.type)]
    pa.parquet.write_table(table, file, compression="zstd", compression_level=1, use_dictionary=words or False)


def _arrow(table: pa.Table, file: Any) -> None:
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def _jsonl(table: pa.Table, file: Any) -> None:
    for batch in table.to_batches(1024):
        lines = (json.dumps(row, ensure_ascii=False, default=str) for row in batch.to_pylist())
        file.write(("\n".join(lines) + "\n").encode())


def _csv(table: pa.Table, file: Any) -> None:
    """Lists as JSON, since CSV has none."""
    columns = {name: _flat(table.column(name)) for name in table.column_names}
    pa.csv.write_csv(pa.table(columns), file)


def _flat(column: pa.ChunkedArray) -> Any:
    if not pa.types.is_nested(column.type):
        return column
    return pa.array([None if one is None else json.dumps(one) for one in column.to_pylist()], pa.string())


def _npy_files(table: pa.Table, name: str) -> dict[str, Write]:
    files: dict[str, Write] = {}
    for column in table.column_names:
        if column != ERRORS:
            array = _array(table.column(column))
            files[f"{name}.{column}.npy"] = lambda file, array=array: np.save(file, array)  # type: ignore[misc]
    errors = table.column(ERRORS) if ERRORS in table.column_names else None
    if errors is not None and errors.null_count < len(errors):
        wrong = {row: why for row, why in enumerate(errors.to_pylist()) if why is not None}
        text = "".join(json.dumps({"row": row, "error": why}) + "\n" for row, why in wrong.items())
        files[f"{name}.{ERRORS}.jsonl"] = lambda file: file.write(text.encode())
    return files


def _array(column: pa.ChunkedArray) -> Array:
    """Numbers; what is null is NaN, or 0 where the dtype has no NaN."""
    array = column.combine_chunks()
    if not pa.types.is_fixed_size_list(array.type):
        return _numbers(array)
    width = array.type.list_size
    flat = _numbers(array.values).reshape(-1, width)[array.offset : array.offset + len(array)].copy()
    if array.null_count:
        flat[~np.asarray(array.is_valid())] = np.nan if flat.dtype.kind == "f" else 0
    return flat


def _numbers(array: pa.Array) -> Array:
    if not array.null_count:
        return np.asarray(array.to_numpy(zero_copy_only=False))
    dtype = array.type.to_pandas_dtype()
    values = array.fill_null(0).to_numpy(zero_copy_only=False).astype(dtype)
    if values.dtype.kind == "f":
        values[~np.asarray(array.is_valid())] = np.nan
    return np.asarray(values)


_WRITERS: dict[str, Callable[[pa.Table, Any], None]] = {
    "parquet": _parquet,
    "arrow": _arrow,
    "jsonl": _jsonl,
    "csv": _csv,
}
