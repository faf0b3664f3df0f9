"""Where keys are kept: a file that only its user can read, or the broker. Text under names; means nothing by itself."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from common.connect import broker_errors
from common.errors import ConfigError
from common.keys import ACCESS
from common.scripts import models_read

if TYPE_CHECKING:
    import redis


class Store(Protocol):
    """Each method is one step for all who use the store at the same time."""

    def read(self) -> dict[str, str]: ...
    def put(self, name: str, text: str) -> None: ...
    def remove(self, name: str) -> bool:
        """False where there is none."""
        ...


class FileStore:
    """A JSON map of mode 0600, replaced as a whole. Raises ConfigError for what cannot be read, or others may read."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def read(self) -> dict[str, str]:
        try:
            with self._path.open(encoding="utf-8") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise ConfigError(f"{self._path} is open to other users: chmod 600 {self._path}")
                found = json.load(file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._path} cannot be read as a file of keys: {error}") from error
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise ConfigError(f"{self._path} must be a JSON map of strings, as `inference-worker keys` writes it")
        return found

    def put(self, name: str, text: str) -> None:
        with self._locked():
            self._write({**self.read(), name: text})

    def remove(self, name: str) -> bool:
        with self._locked():
            entries = self.read()
            if entries.pop(name, None) is None:
                return False
            self._write(entries)
            return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two commands at once write one after the other. The lock is a file of its own: the other is replaced."""
        try:
            lock = os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise ConfigError(f"keys cannot be written to {self._path}: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _write(self, entries: dict[str, str]) -> None:
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(entries, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)


class BrokerStore:
    """One hash in Redis. Raises BrokerUnavailable."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def read(self) -> dict[str, str]:
        with broker_errors():
            found = self._redis.execute_command("HGETALL", ACCESS)
        return {name: text.decode(errors="replace") for name, text in models_read(found).items()}

    def put(self, name: str, text: str) -> None:
        with broker_errors():
            self._redis.execute_command("HSET", ACCESS, name, text)

    def remove(self, name: str) -> bool:
        with broker_errors():
            return bool(self._redis.execute_command("HDEL", ACCESS, name))
