"""Columns of the input to what the model takes: which column is which input, and each row checked. No I/O.

A row that does not fit (null, a word where a number belongs, a vector of another length) has an error of its own; a
column of a type that can never fit is told before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.errors import ConfigError
from common.names import shorten
from common.tensor import Array, numpy_dtype
from inference_worker.models.spec import TensorSpec, fits
from inference_worker.scoring.chunks import Indices, Sizes
from inference_worker.scoring.facts import Facts
from inference_worker.scoring.images import decode_image

Errors = dict[int, str]

NULL = "is null"


@dataclass(frozen=True, slots=True)
class Bound:
    """A model's input and the column that holds it."""

    tensor: TensorSpec
    column: str


@dataclass(frozen=True, slots=True)
class Column:
    """One input of a shard: an array with the rows first, or a list of one array per row where their sizes differ."""

    values: Array | list[Array]
    errors: Errors

    def take(self, rows: Indices) -> Array:
        if isinstance(self.values, list):
            return np.stack([self.values[row] for row in rows])
        return self.values[rows]


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs of a shard. `good` are the rows that can run, `errors` say why the others cannot."""

    rows: int
    columns: Mapping[str, Column]
    good: Indices
    errors: Errors
    sizes: Sizes

    def take(self, rows: Indices) -> dict[str, Array]:
        return {name: column.take(rows) for name, column in self.columns.items()}


def bind(facts: Facts, mapping: Mapping[str, str], schema: pa.Schema) -> tuple[Bound, ...]:
    """Which column is which input: as `mapping` says, else by name, else the only one to the only one.

    Raises ConfigError naming the input and the columns that there are.
    """
    known = {one.name for one in facts.inputs}
    for name in mapping:
        if name not in known:
            raise ConfigError(f"model '{facts.label}' has no input '{name}'; it takes {', '.join(sorted(known))}")
    only = schema.names[0] if len(schema.names) == 1 and len(facts.inputs) == 1 else None
    return tuple(Bound(one, _column_of(one, mapping, schema, only)) for one in facts.inputs)


def _column_of(one: TensorSpec, mapping: Mapping[str, str], schema: pa.Schema, only: str | None) -> str:
    column = mapping.get(one.name) or (one.name if one.name in schema.names else only)
    if column is None or column not in schema.names:
        wanted = f"no column '{column}' for" if column else "no column for"
        raise ConfigError(
            f"there is {wanted} the input {one}; the columns are {_listed(schema.names)}: say --input {one.name}=COLUMN"
        )
    return column


def text_types(facts: Facts, mapping: Mapping[str, str], form: str) -> dict[str, pa.DataType]:
    """What formats of text shall not guess. In CSV an input's column is text until its row is checked."""
    if form == "jsonl":
        return {mapping.get(one.name, one.name): _json_type(one) for one in facts.inputs if not one.shape}
    csv = form in ("csv", "tsv")
    return {mapping.get(one.name, one.name): pa.string() for one in facts.inputs if csv and not one.shape}


def _json_type(tensor: TensorSpec) -> pa.DataType:
    if tensor.dtype == "BYTES":
        return pa.string()
    return pa.float64() if numpy_dtype(tensor.dtype).kind == "f" else pa.from_numpy_dtype(numpy_dtype(tensor.dtype))


def check_types(bound: Sequence[Bound], head: pa.Table, place: str) -> None:
    """Raises ConfigError for a column in whose first rows nothing fits: not a bad row, but another type."""
    for one in bound:
        column = _read(one, head.column(one.column))
        wrong = [row for row, why in column.errors.items() if why != NULL]
        if wrong and len(column.errors) == head.num_rows:
            raise ConfigError(f"{place}, column '{one.column}', row {wrong[0]}: {column.errors[wrong[0]]}")


def read_inputs(bound: Sequence[Bound], table: pa.Table) -> Inputs:
    """A shard's columns as its model's inputs."""
    columns = {one.tensor.name: _read(one, table.column(one.column)) for one in bound}
    errors: Errors = {}
    for one in bound:
        for row, why in columns[one.tensor.name].errors.items():
            errors.setdefault(row, f"column '{one.column}': {why}")
    good = np.setdiff1d(np.arange(table.num_rows), np.fromiter(errors, np.int64, len(errors)))
    return Inputs(table.num_rows, columns, good, errors, _sizes(columns.values(), table.num_rows))


def _read(one: Bound, column: pa.ChunkedArray) -> Column:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return _reader(one.tensor, array.type)(one.tensor, array)


Reader = Callable[[TensorSpec, pa.Array], Column]


def _reader(tensor: TensorSpec, kind: pa.DataType) -> Reader:
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if tensor.dtype == "BYTES" and not tensor.shape and _is_text(kind):
        return _strings
    if tensor.dtype == "BYTES" or kind == pa.null():
        return _one_by_one
    if not tensor.shape and not listed:
        return _numbers
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _images
    plain = listed and (_is_number(kind.value_type))
    if plain and tensor.shape == (-1,):
        return _ragged
    return _vectors if plain and -1 not in tensor.shape else _one_by_one


def _strings(tensor: TensorSpec, array: pa.Array) -> Column:
    values = array.to_numpy(zero_copy_only=False).astype(object, copy=False)
    return Column(values, dict.fromkeys(_nulls(array), NULL))


def _numbers(tensor: TensorSpec, array: pa.Array) -> Column:
    """A column of numbers, or of text that holds numbers."""
    dtype = numpy_dtype(tensor.dtype)
    errors = dict.fromkeys(_nulls(array), NULL)
    try:
        cast = _cast(array, dtype)
    except pa.ArrowException:
        return _one_by_one(tensor, array)
    return Column(pc.fill_null(cast, _zero(cast.type)).to_numpy(zero_copy_only=False).astype(dtype, copy=False), errors)


def _vectors(tensor: TensorSpec, array: pa.Array) -> Column:
    """Lists of numbers, all of the declared size where they fit: one array without a Python object per row."""
    dtype, size = numpy_dtype(tensor.dtype), prod(tensor.shape)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    nulls = _nulls(array)
    wrong = np.flatnonzero(lengths != size)
    errors: Errors = {int(row): f"has {lengths[row]} numbers; input {tensor} takes {size}" for row in wrong}
    errors.update(dict.fromkeys(nulls, NULL))
    numbers = _flat(array, dtype)
    if numbers is None:
        return _one_by_one(tensor, array)
    fits_size = np.ones(len(array), bool)
    fits_size[list(errors)] = False
    values = np.zeros((len(array), size), dtype)
    values[fits_size] = numbers[np.repeat(fits_size, lengths)].reshape(-1, size)
    return Column(values.reshape(-1, *tensor.shape), errors)


def _ragged(tensor: TensorSpec, array: pa.Array) -> Column:
    """Lists of numbers of any length, as views of one array; where all have one length they are rows of it."""
    numbers = _flat(array, numpy_dtype(tensor.dtype))
    if numbers is None:
        return _one_by_one(tensor, array)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    errors = dict.fromkeys(_nulls(array), NULL)
    if len(lengths) and not errors and (lengths == lengths[0]).all():
        return Column(numbers.reshape(len(lengths), -1), errors)
    return Column(np.split(numbers, np.cumsum(lengths)[:-1]) if len(lengths) else [], errors)


def _flat(array: pa.Array, dtype: np.dtype[Any]) -> Array | None:
    """The numbers of all lists, one behind the other; None where there are others among them, or gaps."""
    flat = array.flatten()
    try:
        numbers: Array = _cast(flat, dtype).to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        return None
    return None if flat.null_count else numbers


def _images(tensor: TensorSpec, array: pa.Array) -> Column:
    """Encoded pictures, decoded to the size that the model declares."""
    return _each(tensor, array, lambda value: decode_image(value, tensor))


def _one_by_one(tensor: TensorSpec, array: pa.Array) -> Column:
    return _each(tensor, array, lambda value: _as_declared(value, tensor))


def _each(tensor: TensorSpec, array: pa.Array, convert: Callable[[Any], Array]) -> Column:
    """Row by row: whatever Arrow cannot do at once, and to find the rows at fault."""
    values: list[Array] = []
    errors: Errors = {}
    blank = np.zeros([max(size, 0) for size in tensor.shape], numpy_dtype(tensor.dtype))
    for row, value in enumerate(array):
        try:
            values.append(convert(_python(value)))
        except (ValueError, TypeError, OverflowError) as error:
            errors[row] = str(error) if isinstance(error, _Misfit) else f"{shorten(_python(value))}: {error}"
            values.append(blank)
    if -1 in tensor.shape:
        return Column(values, errors)
    if not tensor.shape:
        flat = np.empty(len(values), numpy_dtype(tensor.dtype))
        flat[:] = [value[()] for value in values]
        return Column(flat, errors)
    return Column(np.stack(values) if values else blank[None][:0], errors)


class _Misfit(ValueError):
    """A value that is not what the model takes; says so itself."""


def _as_declared(value: Any, tensor: TensorSpec) -> Array:
    """One value as an array of the declared dtype and shape. Raises ValueError or TypeError."""
    if value is None:
        raise _Misfit(NULL)
    dtype = numpy_dtype(tensor.dtype)
    if dtype.kind == "O":
        return _text(value, tensor)
    try:
        array = np.asarray(int(value) if isinstance(value, str) and dtype.kind in "iu" else value)
        numbers = array.astype(np.float64) if array.dtype.kind in "US" else array
        with np.errstate(invalid="ignore", over="ignore"):
            cast = numbers.astype(dtype)
    except (ValueError, TypeError, OverflowError):
        raise _Misfit(f"{shorten(value)} is no {tensor.dtype} for input {tensor}") from None
    if dtype.kind in "iu" and not np.array_equal(cast, numbers):
        raise _Misfit(f"{shorten(value)} is no {tensor.dtype} for input {tensor}")
    flat = -1 not in tensor.shape and cast.ndim == 1 and cast.size == prod(tensor.shape)
    cast = cast.reshape(tensor.shape) if flat else cast
    if not fits(tensor.shape, cast.shape):
        raise _Misfit(f"has shape {list(cast.shape)}; input {tensor} takes {list(tensor.shape)}")
    return cast


def _text(value: Any, tensor: TensorSpec) -> Array:
    array = np.asarray(value, dtype=object)
    if not all(isinstance(one, (str, bytes)) for one in array.flat) or not fits(tensor.shape, array.shape):
        raise _Misfit(f"{shorten(value)} is no text for input {tensor}")
    return array


def _python(value: Any) -> Any:
    return value.as_py() if isinstance(value, pa.Scalar) else value


def _cast(array: pa.Array, dtype: np.dtype[Any]) -> pa.Array:
    """Numbers as `dtype`; to a float what is nearest, to an integer only what is one. Raises ArrowException."""
    wanted = pa.from_numpy_dtype(dtype)
    return array.cast(wanted, safe=dtype.kind != "f" or not _is_number(array.type))


def _zero(kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(0, pa.int8()).cast(kind)


def _nulls(array: pa.Array) -> list[int]:
    found: list[int] = np.flatnonzero(pc.is_null(array).to_numpy(zero_copy_only=False)).tolist()
    return found if array.null_count else []


def _is_text(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _sizes(columns: Any, rows: int) -> Sizes:
    """Each row's length (of its longest input), bytes, and the number of its inputs' shapes."""
    length, size = np.ones(rows, np.int64), np.zeros(rows, np.int64)
    shapes: list[list[object]] = []
    for column in columns:
        if isinstance(column.values, list):
            counts = np.array([one.size for one in column.values], np.int64)
            sizes = np.array([one.nbytes for one in column.values], np.int64)
            shapes.append([one.shape for one in column.values])
        elif column.values.dtype == object and column.values.ndim == 1:
            counts = sizes = np.array([len(one or "") for one in column.values], np.int64)
        else:
            counts = np.full(rows, prod(column.values.shape[1:]), np.int64)
            sizes = counts * column.values.dtype.itemsize
        length, size = np.maximum(length, counts), size + sizes
    numbers: dict[tuple[object, ...], int] = {}
    shape = [numbers.setdefault(key, len(numbers)) for key in zip(*shapes, strict=True)] if shapes else [0] * rows
    return Sizes(length, np.array(shape, np.int64), size)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown or "none"
