"""Lines of JSON as Arrow batches, row by row: one that is no JSON, or of another type, costs no other. Pure."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.json


def json_batch(block: bytes, parse: Any, known: pa.Schema | None) -> pa.RecordBatch | None:
    """Lines of JSON as one batch, those that are none as rows of nulls."""
    try:
        table = pa.json.read_json(pa.BufferReader(block), pa.json.ReadOptions(block_size=len(block) + 1), parse)
    except pa.ArrowInvalid:
        rows = [_json_row(line) for line in block.split(b"\n") if line.strip()]
        if not rows:
            return None
        table = _json_table(rows, known or _inferred(rows, parse.explicit_schema))
    # A block in which a column is missing, or null throughout, has it as the first block did.
    table = table if known is None else _like(table, known)
    return table.combine_chunks().to_batches()[0] if table.num_rows else None


def _json_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Of values that are not of their column's type the rows have nulls."""
    try:
        return pa.Table.from_pylist(rows, schema)
    except pa.ArrowException:
        fitting = [{field.name: _fitting(row.get(field.name), field.type) for field in schema} for row in rows]
        return pa.Table.from_pylist(fitting, schema)


def _inferred(rows: list[dict[str, Any]], explicit: pa.Schema | None) -> pa.Schema:
    """The types of all columns: those that are given, and of the others what their values are."""
    given = {} if explicit is None else {field.name: field.type for field in explicit}
    names = dict.fromkeys([*given, *(name for row in rows for name in row)])
    return pa.schema([(name, given.get(name) or _type_of([row.get(name) for row in rows])) for name in names])


def _type_of(values: list[Any]) -> pa.DataType:
    try:
        return pa.array(values).type
    except pa.ArrowException:
        return pa.string()


def _fitting(value: Any, kind: pa.DataType) -> Any:
    try:
        pa.array([value], kind)
    except pa.ArrowException:
        return None
    return value


def _json_row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _like(table: pa.Table, known: pa.Schema) -> pa.Table:
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in known
    ]
    return pa.table(columns, schema=known)
