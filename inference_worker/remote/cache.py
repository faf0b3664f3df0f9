"""The host's cache of fetched repositories, bounded: what was used longest ago goes first, what is in use never.

blobs/<digest>           a file's verified content, read-only, once for however many models have it
parts/<key>              as much of a file as has come so far
known/<key>              the digest of a file that only a listing told of
snapshots/<id>/about     a repository's name and entries
snapshots/<id>/used      shared-locked by each process that uses the snapshot; its time is that of the last use
snapshots/<id>/files/    the repository as far as it was fetched: hard links to blobs, so that pages are shared
locks/                   held while a file is fetched, and while the cache is cleared
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError, DiskFull
from inference_worker.remote.index import Entry
from inference_worker.remote.lease import is_leased, try_exclusive

if TYPE_CHECKING:
    from filelock import BaseFileLock

_FOLDERS = ("blobs", "parts", "known", "snapshots", "locks")
_BLOCK_BYTES = 512
#: The disk has no room, or this user's part of it: later it may have.
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Kept:
    """One snapshot in the cache: its size counts each of its files, those too that others share."""

    id: str
    name: str
    bytes: int
    last_used_s: float
    in_use: bool


class Cache:
    """Folders, and who may remove what. Several processes use one at a time. Methods raise ConfigError or DiskFull."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        with disk_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in _FOLDERS:
                (folder / name).mkdir(exist_ok=True)
            if folder.stat().st_mode & stat.S_IWOTH:
                raise ConfigError(f"the cache {folder} may be written by every user, and so may models: chmod o-w it")

    def blob(self, digest: str) -> Path:
        return self.folder / "blobs" / digest

    def part(self, key: str) -> Path:
        return self.folder / "parts" / key

    def snapshot(self, identity: str) -> Path:
        return self.folder / "snapshots" / identity

    def lock(self, key: str) -> BaseFileLock:
        """Whoever holds it is the only one on this host who fetches, replaces or removes the file `key`."""
        from filelock import FileLock

        return FileLock(self.folder / "locks" / key)

    def known(self, key: str) -> str:
        """The digest of the content that was fetched for `key`; empty where none was."""
        with suppress(FileNotFoundError):
            return (self.folder / "known" / key).read_text("ascii")
        return ""

    def learn(self, key: str, digest: str) -> None:
        write_aside(self.folder / "known" / key, digest.encode())

    def add(self, part: Path, digest: str) -> None:
        """A verified part becomes a blob: never seen half-made, also not after a crash of the host."""
        part.chmod(0o444)
        part.replace(self.blob(digest))
        sync_folder(self.folder / "blobs")

    def describe(self, identity: str, name: str, entries: Iterable[Entry]) -> None:
        """Write down what a snapshot is, unless that is there."""
        about = self.snapshot(identity) / "about"
        if not about.exists():
            about.parent.mkdir(exist_ok=True)
            about.with_name("used").touch()
            write_aside(about, json.dumps({"name": name, "entries": [asdict(one) for one in entries]}).encode())

    def entries(self, identity: str) -> tuple[Entry, ...]:
        return tuple(Entry(**one) for one in self._about(identity)["entries"])

    def latest(self, name: str) -> str | None:
        """The snapshot of that repository that was used last."""
        found = [one for one in self.kept() if one.name == name]
        return max(found, key=lambda one: one.last_used_s).id if found else None

    def kept(self) -> list[Kept]:
        """The snapshots, the one used longest ago first."""
        found: list[Kept] = []
        for folder in (self.folder / "snapshots").iterdir():
            # One that somebody makes or removes right now is none.
            with suppress(FileNotFoundError):
                found += [self._kept(folder)] if not folder.name.startswith(".") else []
        return sorted(found, key=lambda one: one.last_used_s)

    def bytes(self) -> int:
        """What the cache takes on the disk, shared files counted once."""
        return _bytes_of(self.folder)

    def make_room(self, count: int) -> None:
        """So that `count` more bytes fit into the bound and on the disk.

        Raises ConfigError, and where it is the disk DiskFull, with figures otherwise.
        """
        with self.lock("cleaning"):
            for one in self.kept():
                if self.bytes() + count <= self.most_bytes:
                    break
                self._remove(one.id)
                self._sweep()
            held = self.bytes()
        if held + count > self.most_bytes:
            raise ConfigError(
                f"{_mb(count)} are to be fetched, and the cache {self.folder} holds {_mb(held)} that are in use or "
                f"half fetched, of {_mb(self.most_bytes)} allowed; set a larger --cache-size"
            )
        free = shutil.disk_usage(self.folder).free
        if count > free:
            raise DiskFull(
                f"{_mb(count)} are to be fetched, and the disk of the cache {self.folder} has {_mb(free)} left; "
                "make room, or name a cache on another disk by --cache"
            )

    def clear(self) -> list[Kept]:
        """Remove all that no live process uses or fetches; what stays."""
        with self.lock("cleaning"):
            for one in self.kept():
                self._remove(one.id)
            self._sweep()
            for part in (self.folder / "parts").iterdir():
                self._unlink_unless_locked(part)
        return self.kept()

    def _remove(self, identity: str) -> None:
        folder = self.snapshot(identity)
        lock = try_exclusive(folder / "used")
        if lock is None:
            return
        # In one step: nobody finds the rest of one that is being removed.
        gone = folder.with_name(f".{identity}")
        (folder / "used").unlink()
        folder.rename(gone)
        lock.end()
        shutil.rmtree(gone)

    def _sweep(self) -> None:
        """Remove what no snapshot has, and what a removal left that was cut short."""
        for gone in (self.folder / "snapshots").glob(".*"):
            shutil.rmtree(gone)
        for blob in (self.folder / "blobs").iterdir():
            if blob.stat().st_nlink == 1:
                self._unlink_unless_locked(blob)
        for known in (self.folder / "known").iterdir():
            digest = self.known(known.name)
            if not known.name.startswith(".") and not (digest and self.blob(digest).exists()):
                known.unlink()

    def _unlink_unless_locked(self, path: Path) -> None:
        from filelock import Timeout

        lock = self.lock(path.name)
        with suppress(Timeout), lock.acquire(timeout=0):
            path.unlink()
            # Whoever waits for it finds it gone, and makes another.
            Path(lock.lock_file).unlink()

    def _kept(self, folder: Path) -> Kept:
        used = folder / "used"
        name = self._about(folder.name)["name"]
        return Kept(folder.name, name, _bytes_of(folder / "files"), used.stat().st_mtime, is_leased(used))

    def _about(self, identity: str) -> dict[str, Any]:
        about: dict[str, Any] = json.loads((self.snapshot(identity) / "about").read_bytes())
        return about

    def __repr__(self) -> str:
        return f"Cache({self.folder}, at most {_mb(self.most_bytes)})"


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """What the disk refuses, as one error that names the cache: DiskFull, or else ConfigError."""
    try:
        yield
    except OSError as error:
        kind = DiskFull if error.errno in _FULL else ConfigError
        raise kind(
            f"the cache {folder} cannot be written: {error.strerror or error}; make room, or name another by --cache"
        ) from error


def write_aside(path: Path, data: bytes) -> None:
    """Write a small file so that it is seen as a whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bytes_of(folder: Path) -> int:
    """Bytes on the disk of all files below `folder`, each counted once however many names it has."""
    sizes: dict[tuple[int, int], int] = {}
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                facts = os.lstat(os.path.join(path, name))
                sizes[facts.st_dev, facts.st_ino] = facts.st_blocks * _BLOCK_BYTES
    return sum(sizes.values())


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
