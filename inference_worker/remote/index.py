"""The index of a repository: every file's path, size and digest. Checked before anything of it is fetched.

`models.index.json`, in the repository's own folder:

    {"version": 1, "files": [{"path": "m/1/w.bin", "size": 5, "blake2b_256": "<64 hexadecimal digits>"}, ...]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from common.errors import ConfigError
from common.names import shorten
from inference_worker.models.weights import INDEX_FILE, file_digest, files_in

VERSION = 1
#: Of a repository's files; an index at this bound has some 20 MB.
MOST_FILES = 100_000
MOST_INDEX_BYTES = 64 << 20
MOST_PARTS = 16
#: What Linux takes as one part of a path, and well below what it takes as a whole.
MOST_PART_BYTES = 255
MOST_PATH_BYTES = 1024
MOST_FILE_BYTES = 1 << 40
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file. `digest` is BLAKE2b-256 of its content; where only a listing told of it, `etag` is its version."""

    path: str
    size: int
    digest: str = ""
    etag: str = ""


def parse_index(text: bytes, where: str) -> tuple[Entry, ...]:
    """The entries of an index file; `where` names it in errors. Raises ConfigError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is no JSON: {error}; write it again by `models index`") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ConfigError(f'{where} must be a map with "version": {VERSION}; write it again by `models index`')
    files = document.get("files")
    if not isinstance(files, list):
        raise ConfigError(f"{where}: files must be a list; got {shorten(files)}")
    return check_entries([_entry(one, f"{where}: files[{number}]") for number, one in enumerate(files)], where)


def print_index(entries: Iterable[Entry]) -> str:
    """An index file's text: the same for the same files, one line for each."""
    lines = [
        json.dumps({"path": one.path, "size": one.size, "blake2b_256": one.digest}, ensure_ascii=False)
        for one in sorted(entries, key=lambda entry: entry.path)
    ]
    return f'{{"version": {VERSION}, "files": [\n' + ",\n".join(lines) + "\n]}\n"


def index_folder(folder: Path) -> tuple[Entry, ...]:
    """The entries of a local repository, its own index left out. Raises ConfigError where a link leads out of it."""
    found = [Entry(path, file.stat().st_size, file_digest(file).hex()) for path, file in files_in(folder)]
    return check_entries(found, str(folder))


def served(path: str) -> bool:
    """Whether a listed file belongs to the repository: not hidden, none of Python's caches, not the index itself."""
    parts = path.split("/")
    return path != INDEX_FILE and not any(part.startswith(".") or part == "__pycache__" for part in parts)


def check_entries(entries: Sequence[Entry], where: str) -> tuple[Entry, ...]:
    """`entries` by path. Raises ConfigError where there are too many, or one may not be written where it says."""
    if len(entries) > MOST_FILES:
        raise ConfigError(f"{where} holds {len(entries)} files; at most {MOST_FILES} are fetched, name a folder in it")
    for one in entries:
        reason = _fault(one)
        if reason:
            raise ConfigError(f"{where}: the file {shorten(one.path)} is refused: {reason}")
    ordered = sorted(entries, key=lambda entry: entry.path)
    _check_apart(ordered, where)
    return tuple(ordered)


def below(entries: Iterable[Entry], folder: str) -> tuple[Entry, ...]:
    """The entries inside `folder`, by their paths in it."""
    prefix = f"{folder}/"
    return tuple(
        Entry(one.path.removeprefix(prefix), one.size, one.digest, one.etag)
        for one in entries
        if one.path.startswith(prefix)
    )


def _entry(value: Any, where: str) -> Entry:
    match value:
        case {"path": str(path), "size": int(size), "blake2b_256": str(digest)} if _sound(size, digest):
            return Entry(path, size, digest)
    raise ConfigError(f"{where} must hold path, size and blake2b_256 (64 hexadecimal digits); got {shorten(value)}")


def _sound(size: int, digest: str) -> bool:
    """A bool matches int, too."""
    return type(size) is int and _DIGEST.fullmatch(digest) is not None


def _fault(entry: Entry) -> str:
    """Why an entry is not taken; empty for a good one."""
    parts = entry.path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "its path must be relative, with one '/' between its parts and no '.' or '..' among them"
    if any(not letter.isprintable() for letter in entry.path) or "\\" in entry.path:
        return "its path holds control characters or '\\'"
    if len(parts) > MOST_PARTS:
        return f"it lies {len(parts)} levels deep, at most {MOST_PARTS} are allowed"
    if len(entry.path.encode()) > MOST_PATH_BYTES or any(len(part.encode()) > MOST_PART_BYTES for part in parts):
        return f"its path is longer than {MOST_PATH_BYTES} bytes, or a part of it than {MOST_PART_BYTES}"
    if not 0 <= entry.size <= MOST_FILE_BYTES:
        return f"its size is {entry.size} bytes; it must be 0 to {MOST_FILE_BYTES}"
    if not served(entry.path):
        return "hidden files and Python's caches are no part of a model"
    return ""


def _check_apart(ordered: Sequence[Entry], where: str) -> None:
    """Raises ConfigError for two files of one path, and for a file that another one needs as its folder."""
    paths = {one.path for one in ordered}
    if len(paths) < len(ordered):
        twice = next(one.path for one, other in pairwise(ordered) if one.path == other.path)
        raise ConfigError(f"{where}: the file {shorten(twice)} is there twice")
    for folder in _folders(ordered):
        if folder in paths:
            raise ConfigError(f"{where}: {shorten(folder)} cannot be both a file and a folder")


def _folders(entries: Iterable[Entry]) -> Iterator[str]:
    for one in entries:
        yield from (str(parent) for parent in PurePosixPath(one.path).parents)
