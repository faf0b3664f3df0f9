"""One state of a remote repository, in the host's cache: a folder that is filled as files are asked for."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from common.errors import ConfigError, RepositoryUnavailable
from inference_worker.models.weights import INDEX_FILE, file_digest
from inference_worker.remote.cache import Cache, disk_errors
from inference_worker.remote.download import Download
from inference_worker.remote.index import MOST_INDEX_BYTES, Entry, below, check_entries, parse_index, served
from inference_worker.remote.lease import Lease, lease
from inference_worker.remote.location import Location, parse
from inference_worker.remote.progress import Meter, Progress, silent
from inference_worker.remote.store import Store

log = logging.getLogger(__name__)

#: Files that are fetched at a time.
_FILES = 4
#: An index above a model's folder is found from it, as discover() finds models below a repository's.
_LEVELS = 2


class Snapshot:
    """Stays in the cache as long as this object lives. `name` is its URL as it may be shown.

    `stale`: why it may not be what its store holds now; empty where that was asked.
    """

    def __init__(
        self, cache: Cache, store: Store, identity: str, entries: Sequence[Entry], held: Lease, stale: str = ""
    ) -> None:
        self._cache = cache
        self._store = store
        self._entries = entries
        self._held = held
        self.stale = stale
        self.name = store.location.shown
        # Name and version of a model are those of its folders, so the URL's last two are kept.
        self.folder = cache.snapshot(identity).joinpath("files", *store.location.parts[-2:])

    def fetch(self, wanted: Callable[[str], bool] = lambda path: True, progress: Progress = silent) -> None:
        """Have the files whose paths are `wanted` in `folder`, each verified now.

        Raises ConfigError, RepositoryUnavailable, DiskFull.
        """
        missing = [one for one in self._entries if wanted(one.path) and not self._is_there(one)]
        if not missing:
            return
        self._cache.make_room(sum(self._lacks(one) for one in missing))
        meter = Meter(self.name, sum(one.size for one in missing), progress)
        with ThreadPoolExecutor(_FILES, "fetch") as threads:
            for _ in threads.map(lambda one: self._place(one, meter), missing):
                pass

    def fetch_folder(self, folder: Path, progress: Progress = silent) -> None:
        """Have all files below `folder`, which lies in this snapshot's or is it."""
        inner = folder.relative_to(self.folder.resolve())
        prefix = "" if inner == Path() else f"{inner.as_posix()}/"
        self.fetch(lambda path: path.startswith(prefix), progress)

    def _is_there(self, entry: Entry) -> bool:
        path = self.folder / entry.path
        if not path.is_file():
            return False
        if file_digest(path).hex() == self._digest(entry):
            return True
        log.warning("%s is not what was fetched from %s: corrupt, and fetched again", path, self.name)
        return False

    def _lacks(self, entry: Entry) -> int:
        """Bytes that are still to come."""
        digest, part = self._digest(entry), self._cache.part(self._key(entry))
        if digest and self._cache.blob(digest).exists():
            return 0
        return max(0, entry.size - part.stat().st_size) if part.exists() else entry.size

    def _place(self, entry: Entry, meter: Meter) -> None:
        key = self._key(entry)
        with disk_errors(self._cache.folder), self._cache.lock(key):
            while not _link(self._blob(entry, key, meter), self.folder / entry.path):
                log.info("'%s' was cleared from the cache and is fetched again", entry.path)

    def _blob(self, entry: Entry, key: str, meter: Meter) -> Path:
        """The verified content; fetched unless it is there."""
        digest = self._digest(entry)
        if digest and self._is_intact(digest):
            meter.add(entry.size)
            return self._cache.blob(digest)
        part = self._cache.part(key)
        digest = Download(self._store, entry, part, meter).run()
        if entry.digest:
            self._cache.add(part, digest)
        else:
            self._add_listed(part, key, digest)
        return self._cache.blob(digest)

    def _add_listed(self, part: Path, key: str, digest: str) -> None:
        """As nobody knew its digest, another file with this content may have come meanwhile."""
        with self._cache.lock(digest):
            if self._is_intact(digest):
                part.unlink()
            else:
                self._cache.add(part, digest)
        self._cache.learn(key, digest)

    def _is_intact(self, digest: str) -> bool:
        """Whether the content is there; a corrupt one is removed. The caller holds its lock."""
        blob = self._cache.blob(digest)
        if blob.is_file() and file_digest(blob).hex() != digest:
            blob.unlink()
        return blob.is_file()

    def _digest(self, entry: Entry) -> str:
        return entry.digest or self._cache.known(self._key(entry))

    def _key(self, entry: Entry) -> str:
        return entry.digest or _hash(self.name, entry.path, entry.etag, str(entry.size))

    def __repr__(self) -> str:
        return f"Snapshot({self.name}, {len(self._entries)} files)"


def open_snapshot(url: str, cache: Cache) -> Snapshot:
    """The repository as it is at `url` now; the last one that is in the cache where its store cannot be reached.

    No file of it is fetched. Raises ConfigError, RepositoryUnavailable, DiskFull.
    """
    store = Store(parse(url))
    name, stale = store.location.shown, ""
    try:
        entries = read_entries(store)
    except RepositoryUnavailable as error:
        identity = cache.latest(name)
        if identity is None:
            raise
        stale = f"{error}; its copy in the cache is used"
        log.warning("%s", stale)
        entries = cache.entries(identity)
    identity = _hash(name, *(f"{one.path}\0{one.size}\0{one.digest or one.etag}" for one in entries))
    with disk_errors(cache.folder):
        return Snapshot(cache, store, identity, entries, _held(cache, identity, name, entries), stale)


def read_entries(store: Store) -> tuple[Entry, ...]:
    """What a repository holds: its index, else what the store lists. Raises ConfigError, RepositoryUnavailable."""
    location = store.location
    text = store.read(INDEX_FILE, MOST_INDEX_BYTES)
    if text is not None:
        entries = parse_index(text, f"{location.shown}/{INDEX_FILE}")
    elif location.lists:
        entries = check_entries([one for one in store.listed() if served(one.path)], location.shown)
    else:
        entries = _entries_above(location)
    if not entries:
        # So looks a folder that is not mounted yet.
        raise RepositoryUnavailable(f"there are no files at {location.shown}; is it mounted, and the URL right?")
    return entries


def _entries_above(location: Location) -> tuple[Entry, ...]:
    """Those of an index one or two folders above: a model, or a version of one, of an indexed repository."""
    folder, at = "", location
    for _ in range(_LEVELS):
        above = at.parent()
        if above is None:
            break
        folder = f"{at.parts[-1]}/{folder}".rstrip("/")
        text = Store(above).read(INDEX_FILE, MOST_INDEX_BYTES)
        if text is not None:
            return below(parse_index(text, f"{above.shown}/{INDEX_FILE}"), folder)
        at = above
    raise ConfigError(
        f"{location.shown} has no {INDEX_FILE}, and this kind of store lists no files; "
        "write it by `inference-worker models index FOLDER` and put it there"
    )


def _held(cache: Cache, identity: str, name: str, entries: Iterable[Entry]) -> Lease:
    while True:
        # It may be cleared away between the two.
        with suppress(FileNotFoundError):
            cache.describe(identity, name, entries)
            return lease(cache.snapshot(identity) / "used")


def _link(blob: Path, target: Path) -> bool:
    """Give the blob its place in a snapshot, in one step. False where it is gone."""
    if target.exists() and target.samefile(blob):
        return True
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        os.link(blob, aside)
    except FileNotFoundError:
        return False
    except OSError:
        # A file system without links, or one with too many of this file: it is copied, and not shared.
        shutil.copyfile(blob, aside)
    aside.replace(target)
    return True


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=20).hexdigest()
