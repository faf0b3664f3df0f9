"""A source as a stream of Arrow batches, from any row on, of which a few megabytes are in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from common.errors import ConfigError, InvalidRequest
from common.text import describe
from inference_worker.scoring.jsonrows import json_batch
from inference_worker.scoring.sources import FILES, Source, is_local, open_source

#: Rows of a batch, where the format does not say by itself.
ROWS = 4096
#: Bytes of text that are parsed at a time.
BLOCK = 4 * 1024 * 1024
#: The columns of a folder's files, and the one of lines of text.
PATH, BYTES, TEXT = "path", "bytes", "text"

Columns = Sequence[str] | None
Types = Mapping[str, pa.DataType]
Batches = Iterator[pa.RecordBatch]


class Unreadable(InvalidRequest):
    """A file of the input is broken, or is not what its name says."""


def schema_of(source: Source, types: Types) -> pa.Schema:
    """The columns of a source, by its head. `types` are those that text formats shall have. Raises Unreadable."""
    with reading(source):
        if source.format == "parquet":
            with open_source(source) as file:
                return pa.parquet.read_schema(file)
        first = next(batches(source, None, types), None)
        if first is not None:
            return first.schema
        return pa.schema([(TEXT, pa.string())] if source.format == "text" else list(types.items()))


def rows_of(source: Source) -> int | None:
    """How many rows a source has, where its format tells without reading it. Raises Unreadable."""
    with reading(source):
        if source.format == "parquet":
            with open_source(source) as file:
                return int(pa.parquet.ParquetFile(file).metadata.num_rows)
        if source.format == FILES:
            return len(source.members)
        if source.format == "npy":
            return len(_load_npy(source))
    return None


def can_seek(source: Source) -> bool:
    """Whether reading from a later row on costs less than reading up to there."""
    return source.format in ("parquet", "npy", "npz", FILES)


def batches(source: Source, columns: Columns, types: Types, start: int = 0) -> Batches:
    """The rows of a source from `start` on, of these columns (None: all). Raises Unreadable."""
    with reading(source):
        yield from _READERS[source.format](source, columns, types, start)


class reading:  # noqa: N801 (it reads as a statement)
    """Whatever is wrong with a file, as one error that names it."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (pa.ArrowException, OSError, ValueError, EOFError)) and not isinstance(error, Unreadable):
            path, form = self._source.path, self._source.format
            raise Unreadable(f"'{path}' cannot be read as {form}: {describe(error)}") from error


def _parquet(source: Source, columns: Columns, types: Types, start: int) -> Batches:
    with open_source(source) as raw:
        file = pa.parquet.ParquetFile(raw, pre_buffer=False, buffer_size=1 << 20)
        groups, skipped = list(range(file.num_row_groups)), 0
        while groups and skipped + file.metadata.row_group(groups[0]).num_rows <= start:
            skipped += file.metadata.row_group(groups.pop(0)).num_rows
        if groups:
            names = None if columns is None else list(columns)
            read = file.iter_batches(ROWS, row_groups=groups, columns=names, use_threads=False)
            yield from _from(read, start - skipped)


def _arrow(source: Source, columns: Columns, types: Types, start: int) -> Batches:
    with open_source(source) as raw:
        head = raw.read(6)
    with open_source(source) as raw:
        if head == b"ARROW1":
            reader = pa.ipc.open_file(raw)
            read = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            read = iter(pa.ipc.open_stream(raw))
        yield from _from((_chosen(batch, columns) for batch in read), start)


def _csv(source: Source, columns: Columns, types: Types, start: int) -> Batches:
    options = pa.csv.ConvertOptions(
        column_types=dict(types), include_columns=None if columns is None else list(columns)
    )
    parse = pa.csv.ParseOptions(delimiter="\t" if source.format == "tsv" else ",", newlines_in_values=True)
    with open_source(source) as raw:
        read = pa.csv.open_csv(raw, pa.csv.ReadOptions(block_size=BLOCK), parse, options)
        yield from _from(read, start)


def _jsonl(source: Source, columns: Columns, types: Types, start: int) -> Batches:
    schema = pa.schema(list(types.items())) if types else None
    parse = pa.json.ParseOptions(explicit_schema=schema)
    return _from((_chosen(batch, columns) for batch in _json_batches(source, parse)), start)


def _json_batches(source: Source, parse: pa.json.ParseOptions) -> Batches:
    known: pa.Schema | None = None
    for block in _blocks(source):
        batch = json_batch(block, parse, known)
        if batch is not None:
            known = known or batch.schema
            yield batch


def _text(source: Source, columns: Columns, types: Types, start: int) -> Batches:
    for block in _blocks(source):
        lines = block.removesuffix(b"\n").split(b"\n")
        if start >= len(lines):
            start -= len(lines)
            continue
        texts = [line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines[start:]]
        start = 0
        yield pa.record_batch({TEXT: pa.array(texts, pa.string())})


def _blocks(source: Source) -> Iterator[bytes]:
    """The file in pieces that end with a line. Raises Unreadable for a line without end."""
    with open_source(source) as file:
        rest = b""
        while piece := file.read(BLOCK):
            head, newline, tail = piece.rpartition(b"\n")
            if newline:
                yield rest + head + newline
                rest = tail
            else:
                rest += tail
            if len(rest) > 64 * BLOCK:
                raise Unreadable(f"'{source.path}' has a line of more than {64 * BLOCK} bytes; is it text?")
        if rest:
            yield rest


def _npy(source: Source, columns: Columns, types: Types, start: int) -> Batches:
    yield from _arrays({"array": _load_npy(source)}, start)


def _npz(source: Source, columns: Columns, types: Types, start: int) -> Batches:
    with open_source(source) as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files if columns is None or name in columns}
    if len({len(array) for array in arrays.values()}) > 1:
        sizes = ", ".join(f"{name}: {len(array)}" for name, array in arrays.items())
        raise Unreadable(f"'{source.path}' holds arrays with different numbers of rows: {sizes}")
    yield from _arrays(arrays, start)


def _load_npy(source: Source) -> Any:
    """Mapped into memory where it lies on this host: it is read as it is used."""
    fs, path = fsspec.core.url_to_fs(source.path)
    if source.codec is None and is_local(fs):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        with open_source(source) as file:
            array = np.load(file, allow_pickle=False)
    if array.ndim == 0:
        raise Unreadable(f"'{source.path}' holds a single number; rows are needed")
    return array


def _arrays(arrays: Mapping[str, Any], start: int) -> Batches:
    rows = max(map(len, arrays.values()), default=0)
    for first in range(start, rows, ROWS):
        parts = {name: np.ascontiguousarray(array[first : first + ROWS]) for name, array in arrays.items()}
        yield pa.record_batch({name: _column(part) for name, part in parts.items()})


def _column(array: Any) -> pa.Array:
    """Rows of several numbers as a fixed-size list; their shape is the model's to say."""
    if array.ndim == 1:
        return pa.array(array.astype(str) if array.dtype.kind == "S" else array)
    width = int(np.prod(array.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), width)


def _files(source: Source, columns: Columns, types: Types, start: int) -> Batches:
    wanted = (PATH, BYTES) if columns is None else columns
    step = 64
    for first in range(start, len(source.members), step):
        paths = source.members[first : first + step]
        found = {PATH: pa.array([_below(source, path) for path in paths])}
        if BYTES in wanted:
            found[BYTES] = pa.array([_content(path) for path in paths], pa.binary())
        yield pa.record_batch({name: found[name] for name in wanted})


def _content(path: str) -> bytes:
    with fsspec.open(path, "rb") as file:
        content: bytes = file.read()
        return content


def _below(source: Source, path: str) -> str:
    return path.removeprefix(source.path.rstrip("/") + "/")


def _chosen(batch: pa.RecordBatch, columns: Columns) -> pa.RecordBatch:
    return batch if columns is None else batch.select(list(columns))


def _from(read: Iterator[pa.RecordBatch], start: int) -> Batches:
    for batch in read:
        if start >= batch.num_rows:
            start -= batch.num_rows
            continue
        yield batch.slice(start)
        start = 0


_READERS: dict[str, Callable[[Source, Columns, Types, int], Batches]] = {
    "parquet": _parquet,
    "arrow": _arrow,
    "csv": _csv,
    "tsv": _csv,
    "jsonl": _jsonl,
    "text": _text,
    "npy": _npy,
    "npz": _npz,
    FILES: _files,
}


class Cursor:
    """A source read forwards, shard by shard. What lies between two shards that are asked for is passed over."""

    def __init__(self, source: Source, columns: Columns, types: Types) -> None:
        self._source = source
        self._columns, self._types = columns, types
        self._batches: Batches | None = None
        self._held: list[pa.RecordBatch] = []
        self._at = 0

    def read(self, start: int, rows: int) -> pa.Table | None:
        """Up to `rows` rows from `start` on; None behind the end. Raises Unreadable."""
        if start < self._at:
            raise ConfigError(f"rows of '{self._source.path}' were asked for out of order. This is a bug.")
        if self._batches is None or (start > self._at and can_seek(self._source)):
            self._batches, self._held, self._at = self._open(start), [], start
        self._take(start - self._at)
        taken = self._take(rows)
        return pa.Table.from_batches(taken) if taken else None

    @property
    def position(self) -> int:
        """Rows read or passed over; at the end all that there are."""
        return self._at

    def _open(self, start: int) -> Batches:
        return batches(self._source, self._columns, self._types, start if can_seek(self._source) else 0)

    def _take(self, rows: int) -> list[pa.RecordBatch]:
        taken: list[pa.RecordBatch] = []
        while rows > 0 and self._batches is not None:
            batch = self._held.pop() if self._held else next(self._batches, None)
            if batch is None:
                break
            part = batch.slice(0, rows)
            if part.num_rows < batch.num_rows:
                self._held.append(batch.slice(part.num_rows))
            taken.append(part)
            rows -= part.num_rows
            self._at += part.num_rows
        return taken
