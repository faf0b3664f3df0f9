"""Files that a model refers to: where they are, and the digest of all that its results depend on.

A reference is a path inside the model's own folder, `vocab.txt`, or a file that an installed package
ships, `package://name/path/in/it`. Nothing outside of these two is ever opened.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from common.errors import ConfigError

PACKAGE = "package://"
#: A repository's list of its files (remote/index.py), which is none of a model's own.
INDEX_FILE = "models.index.json"


def resolve(reference: str, folder: Path | None) -> Path:
    """The file that `reference` names. Raises ConfigError where it is missing or leads out of its folder."""
    if reference.startswith(PACKAGE):
        name, _, inner = reference.removeprefix(PACKAGE).partition("/")
        return _inside(_package_folder(name, reference), inner, reference)
    if folder is None:
        raise ConfigError(f"'{reference}' cannot be found: this model has no folder of its own")
    return _inside(folder, reference, reference)


def digest(files: Iterable[tuple[str, Path]]) -> str:
    """40 hexadecimal digits of BLAKE2b over labels and contents: the same on every host, wherever the files lie."""
    whole = hashlib.blake2b(digest_size=20)
    for label, path in sorted(files):
        # The label is framed by its length, the content's digest has always the same.
        whole.update(len(label.encode()).to_bytes(4, "big") + label.encode() + file_digest(path))
    return whole.hexdigest()


def file_digest(path: Path) -> bytes:
    """BLAKE2b-256 of a file's content, as an index of a repository holds it."""
    return _digest_of(path, file_state(path))


def file_state(path: Path) -> tuple[int, ...]:
    """What of a file is another one when its content is."""
    facts = path.stat()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


@lru_cache(maxsize=4096)
def _digest_of(path: Path, state: tuple[int, ...]) -> bytes:
    # Remembered by the file's state: a fetched file is verified and then named in the model's digest, read once.
    with path.open("rb") as file:
        return hashlib.file_digest(file, _blake2b_256).digest()


def _blake2b_256() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=32)


def files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """(label, path) of each file below a model's folder, without hidden ones and what Python caches there.

    Raises ConfigError for a link that leads out of the folder: what it leads to may change unseen, and is
    not there on another host. A link to a folder inside is not followed, since its files are listed there.
    """
    root = folder.resolve()
    for path in folder.rglob("*"):
        inner = path.relative_to(folder)
        if any(part.startswith(".") or part == "__pycache__" for part in inner.parts):
            continue
        if path.is_symlink() and path.exists() and not path.resolve().is_relative_to(root):
            raise ConfigError(f"'{inner}' leads out of {folder}; a model's files must lie inside its folder")
        if path.is_file() and path.name != INDEX_FILE:
            yield inner.as_posix(), path


def _inside(folder: Path, inner: str, reference: str) -> Path:
    """The file `inner` below `folder`, links followed."""
    if not inner or PurePosixPath(inner).is_absolute() or "\\" in inner or "\0" in inner:
        raise ConfigError(f"'{reference}' must be a relative path with '/' between its parts")
    path = (folder / inner).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ConfigError(f"'{reference}' leads out of {folder}; a model's files must lie inside its folder")
    if not path.is_file():
        raise ConfigError(f"'{reference}' is not a file: there is no {folder / inner}")
    return path


def _package_folder(name: str, reference: str) -> Path:
    """An installed package's folder. The package is not imported: its dependencies may be missing or slow."""
    if not name.isidentifier():
        raise ConfigError(f"'{reference}' must have the form {PACKAGE}name/path, with a top-level package's name")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"'{reference}' needs the package '{name}', which is not installed")
    return Path(next(iter(spec.submodule_search_locations)))
