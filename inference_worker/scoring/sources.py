"""Paths, globs and URLs to the files that hold the input, each with what tells whether it has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec

from common.errors import ConfigError

#: The format by suffix, of a compressed file by the one before.
FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
    ".text": "text",
    ".npy": "npy",
    ".npz": "npz",
}
CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
FILES = "files"
CHOICES = (*dict.fromkeys(FORMATS.values()), FILES)
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the input, or a folder whose files are its rows.

    `name` is its path below what was asked for, by which its results are named. `size` in bytes; `changed` is another
    text once its content was written again. `members` are the files of a folder.
    """

    path: str
    name: str
    format: str
    codec: str | None
    size: int
    changed: str
    members: tuple[str, ...] = ()

    def fingerprint(self) -> dict[str, Any]:
        facts = asdict(self)
        del facts["members"]
        return facts


def find_sources(places: Sequence[str], form: str | None = None) -> list[Source]:
    """The input's files in an order that is always the same. Raises ConfigError where a place has none."""
    if STDIN in places:
        if len(places) > 1:
            raise ConfigError(f"standard input ({STDIN}) is read alone; got {len(places)} inputs")
        return [Source(STDIN, "stdin", form or "text", None, 0, "")]
    found = [source for place in places for source in _at(place, form)]
    names: dict[str, str] = {}
    for source in found:
        if (other := names.setdefault(source.name, source.path)) != source.path:
            raise ConfigError(
                f"'{other}' and '{source.path}' would have results of one name, '{source.name}'; "
                "score the folder above both"
            )
    return found


def open_source(source: Source) -> Any:
    """A binary file object, decompressed as it is read. Raises OSError."""
    if source.path == STDIN:
        import sys

        return sys.stdin.buffer
    file = fsspec.open(source.path, "rb").open()
    if source.codec is None:
        return file
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), source.codec)


def _at(place: str, form: str | None) -> list[Source]:
    fs, path = fsspec.core.url_to_fs(place)
    if form == FILES and fs.isdir(path):
        return [_folder(fs, path, place)]
    if fs.isdir(path):
        every = {one: info for one, info in sorted(fs.find(path, detail=True).items()) if _is_data(one, path)}
        data = {one: info for one, info in every.items() if form or _format(one)}
        if not every:
            raise ConfigError(f"there are no files in '{place}'")
        return [_file(fs, one, info, path, form) for one, info in data.items()] or [_folder(fs, path, place)]
    matches: Iterable[str] = sorted(fs.glob(path)) if _has_magic(path) else [path]
    try:
        sources = [_file(fs, one, fs.info(one), _root(path), form) for one in matches]
    except FileNotFoundError:
        sources = []
    if not sources:
        raise ConfigError(f"there is no file '{place}'; give a file, a folder, a glob in quotes, or an fsspec URL")
    return sources


def _file(fs: Any, path: str, info: dict[str, Any], root: str, form: str | None) -> Source:
    name = path.removeprefix(root.rstrip("/") + "/")
    suffixes = PurePosixPath(path).suffixes
    codec = CODECS.get(suffixes[-1]) if suffixes else None
    found = form or _format(path)
    if found is None:
        raise ConfigError(
            f"'{path}' has no suffix that tells its format ({', '.join(FORMATS)}, compressed {', '.join(CODECS)}); "
            "say it by --read-as"
        )
    stem = name.removesuffix(suffixes[-1]) if codec else name
    return Source(
        _url(fs, path), stem.removesuffix(PurePosixPath(stem).suffix), found, codec,
        int(info.get("size") or 0), _changed(info),
    )  # fmt: skip


def _folder(fs: Any, path: str, place: str) -> Source:
    """A folder whose files are the rows; it has changed when any of them has."""
    members = {one: info for one, info in sorted(fs.find(path, detail=True).items()) if _is_data(one, path)}
    if not members:
        raise ConfigError(f"there are no files in '{place}'")
    whole = hashlib.blake2b(digest_size=20)
    for one, info in members.items():
        whole.update(f"{one.removeprefix(path)}\0{info.get('size')}\0{_changed(info)}\0".encode())
    size = sum(int(info.get("size") or 0) for info in members.values())
    name = PurePosixPath(path.rstrip("/")).name
    paths = tuple(_url(fs, one) for one in members)
    return Source(_url(fs, path), name, FILES, None, size, whole.hexdigest(), paths)


def _format(path: str) -> str | None:
    suffixes = [one for one in PurePosixPath(path).suffixes if one not in CODECS]
    return FORMATS.get(suffixes[-1].lower()) if suffixes else None


def _changed(info: dict[str, Any]) -> str:
    """What a store says of a file's content: its tag, else when it was written."""
    for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified"):
        if info.get(key):
            return str(info[key])
    return ""


def _url(fs: Any, path: str) -> str:
    """A path that `fsspec.open` takes: of a local file the path itself."""
    return path if is_local(fs) else fs.unstrip_protocol(path)


def is_local(fs: Any) -> bool:
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def _is_data(path: str, root: str) -> bool:
    """Not what other tools put beside data: names that begin with a dot or an underscore."""
    return not any(part.startswith((".", "_")) for part in path.removeprefix(root).split("/"))


def _has_magic(path: str) -> bool:
    return any(one in path for one in "*?[")


def _root(path: str) -> str:
    """The folder above the first part with a wildcard."""
    parts = path.split("/")
    plain = next((index for index, part in enumerate(parts) if _has_magic(part)), len(parts) - 1)
    return "/".join(parts[:plain])
