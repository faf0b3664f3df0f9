"""The folder of results: shards that appear whole or not at all, what is known of each, and the manifest at the end.

<source>-00000.parquet    a shard's results
_state/plan.json          what all results depend on
_state/<shard>.json       a finished shard's record: it is written last, and is what makes the shard finished
_manifest.json            all of it, once the job is complete; `_state` is gone then
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

import fsspec

from common.errors import ConfigError, DiskFull
from inference_worker.scoring.plan import Plan, check_same
from inference_worker.scoring.shards import Ledger, Shard
from inference_worker.scoring.sources import is_local
from inference_worker.scoring.writers import Write

MANIFEST, STATE = "_manifest.json", "_state"
_PLAN, _END = "plan.json", "end-"
_TEMPORARY = ".tmp-"


class Folder:
    """A local path or an fsspec URL. Safe from many processes: what two of them write is the same."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._fs, root = fsspec.core.url_to_fs(place)
        self._root = root.rstrip("/")
        self._local = is_local(self._fs)
        self._token = uuid4().hex[:12]

    def manifest(self) -> dict[str, Any] | None:
        """That of a complete job; None where there is none."""
        return self._read(MANIFEST)

    def begin(self, plan: Plan) -> None:
        """Begin a job here, or go on with it. Raises ConfigError where another one was begun here, or is other data."""
        there = self.manifest()
        begun = there["plan"] if there else self._read(f"{STATE}/{_PLAN}")
        if begun is None:
            self.check_empty("they are no results of a score job")
            self._write_json(f"{STATE}/{_PLAN}", plan.to_json())
            begun = self._read(f"{STATE}/{_PLAN}")
        check_same(begun or {}, plan.to_json(), self.place)

    def refresh(self, ledger: Ledger) -> None:
        """Learn what others have finished meanwhile."""
        for path in self._files(STATE):
            name = path.removesuffix(".json")
            if name.startswith(_END) and (end := self._read(f"{STATE}/{path}")):
                ledger.ends(end["source"], end["rows"])
            elif path != _PLAN and not name.startswith(_END):
                ledger.finished.add(name)

    def has(self, shard: str) -> bool:
        """Whether a shard is finished, or all of them are."""
        names = (f"{STATE}/{shard}.json", MANIFEST)
        return any(self._fs.exists(f"{self._root}/{name}") for name in names)

    def save(self, shard: Shard, files: Mapping[str, Write], record: Mapping[str, Any]) -> None:
        """A shard's files, and then its record. Raises DiskFull, OSError."""
        for name, write in files.items():
            self._put(name, write)
        self._write_json(f"{STATE}/{shard.name}.json", {**record, "files": list(files)})

    def end(self, source: int, rows: int) -> None:
        """Where a source ends that has to be read to know."""
        self._write_json(f"{STATE}/{_END}{source}.json", {"source": source, "rows": rows})

    def records(self) -> Iterable[dict[str, Any]]:
        """Those of the finished shards, by name."""
        for path in self._files(STATE):
            if path != _PLAN and not path.startswith(_END) and (record := self._read(f"{STATE}/{path}")):
                yield {"shard": path.removesuffix(".json"), **record}

    def complete(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, and remove what only an unfinished job needs."""
        self._write_json(MANIFEST, manifest)
        with suppress(FileNotFoundError):
            self._fs.rm(f"{self._root}/{STATE}", recursive=True)
        for path in self._fs.find(self._root):
            if _TEMPORARY in path.rsplit("/", 1)[-1]:
                # Of a process that was killed while it wrote.
                with suppress(FileNotFoundError):
                    self._fs.rm_file(path)

    def check_empty(self, why: str) -> None:
        """Raises ConfigError where anything is in the folder."""
        if self._fs.isfile(self._root):
            raise ConfigError(f"{self.place} is a file; name a folder for the results")
        if self._fs.isdir(self._root) and self._fs.ls(self._root, detail=False):
            raise ConfigError(
                f"{self.place} holds files already, and {why}; choose an empty folder, or one that is not there yet"
            )

    def _files(self, folder: str) -> list[str]:
        prefix = f"{self._root}/{folder}/"
        self._fs.invalidate_cache(prefix)
        try:
            found = self._fs.find(prefix)
        except FileNotFoundError:
            return []
        names = (path.removeprefix(prefix) for path in sorted(found))
        return [name for name in names if _TEMPORARY not in name]

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            value = json.loads(self._fs.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ConfigError(f"{self.place}/{name} is no JSON ({error}); remove the folder, or restore it") from error
        return value if isinstance(value, dict) else None

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self._put(name, lambda file: file.write(json.dumps(value, indent=1).encode() + b"\n"))

    def _put(self, name: str, write: Callable[[Any], object]) -> None:
        path = f"{self._root}/{name}"
        folder, base = path.rsplit("/", 1)
        temporary = f"{folder}/.{base}{_TEMPORARY}{self._token}"
        try:
            self._fs.makedirs(folder, exist_ok=True)
            with self._fs.open(temporary, "wb") as file:
                write(file)
                if self._local:
                    # A host that loses its power has the file whole, or not under its name.
                    file.flush()
                    os.fsync(file.fileno())
            self._rename(temporary, path)
        except OSError as error:
            with suppress(OSError):
                self._fs.rm_file(temporary)
            if isinstance(error, FileNotFoundError) and self._fs.exists(path):
                return  # Another process was faster, and completed the job.
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    f"no room for '{name}' in {self.place}: {error}; make room and run the same command again, it goes "
                    "on from the last finished shard"
                ) from error
            raise

    def _rename(self, temporary: str, path: str) -> None:
        if self._local:
            os.replace(temporary, path)
        else:
            self._fs.mv(temporary, path)
