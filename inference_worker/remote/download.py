"""One file from its store to a verified part on the disk: resumed where it was left, and never taken half-made."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import IO

from common.errors import ConfigError, RepositoryUnavailable
from inference_worker.models.weights import file_digest
from inference_worker.remote.cache import disk_errors
from inference_worker.remote.index import Entry
from inference_worker.remote.progress import Meter
from inference_worker.remote.store import Store

log = logging.getLogger(__name__)

#: A file that is not what was promised is fetched once more: a part may be of another time, a proxy may be at fault.
_TRIES = 2


class Download:
    """Fetches `entry` into the file `part`. One process at a time: its caller holds the file's lock."""

    def __init__(self, store: Store, entry: Entry, part: Path, meter: Meter) -> None:
        self._store = store
        self._entry = entry
        self._part = part
        self._meter = meter

    def run(self) -> str:
        """The digest of the part, complete and verified. Raises ConfigError or RepositoryUnavailable."""
        wrong = ""
        for _ in range(_TRIES):
            with disk_errors(self._part.parent.parent):
                self._fill()
            digest = file_digest(self._part).hex()
            wrong = self._fault(digest)
            if not wrong:
                return digest
            log.warning("%s; it is thrown away", wrong)
            self._meter.add(-self._part.stat().st_size)
            self._part.unlink()
        raise ConfigError(f"{wrong}; it was fetched {_TRIES} times. Is its index of today? `models index` writes it")

    def _fill(self) -> None:
        try:
            with self._part.open("ab") as file:
                self._meter.add(file.tell())
                while file.tell() < self._entry.size:
                    self._store.retried(lambda: self._pull(file))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            # The disk: what is here of it only keeps it full.
            self._part.unlink(missing_ok=True)
            raise

    def _pull(self, file: IO[bytes]) -> None:
        """Further than before, or RepositoryUnavailable: only tries that bring nothing are counted."""
        entry, start = self._entry, file.tell()
        try:
            for chunk in self._store.chunks(entry.path, start, entry.size):
                self._write(file, chunk)
        except RepositoryUnavailable as error:
            if file.tell() <= start:
                raise
            log.info("%s; resumed at byte %d of %d", error, file.tell(), entry.size)
        if file.tell() <= start:
            raise RepositoryUnavailable(f"{self._named} ended at byte {file.tell()} of {entry.size}")

    def _write(self, file: IO[bytes], chunk: bytes) -> None:
        if not chunk:
            self._meter.add(-file.tell())
            file.seek(0)
            file.truncate()
        file.write(chunk)
        self._meter.add(len(chunk))

    def _fault(self, digest: str) -> str:
        """What is wrong with the part; empty for nothing."""
        entry, size = self._entry, self._part.stat().st_size
        if size != entry.size:
            return f"{self._named} has more than the {entry.size} bytes that its index promises"
        if entry.digest and digest != entry.digest:
            return f"{self._named} has the digest {digest[:12]}… where its index promises {entry.digest[:12]}…"
        if not entry.digest and self._store.version(entry.path) != entry.etag:
            return f"{self._named} was changed while it was fetched"
        return ""

    @property
    def _named(self) -> str:
        return f"'{self._entry.path}' of {self._store.location.shown}"
