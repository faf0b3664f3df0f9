"""The store that a repository is fetched from. Nobody else imports fsspec; its errors become ours here."""

from __future__ import annotations

import errno
import itertools
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import import_module
from typing import Any, TypeVar

from common.errors import ConfigError, InferenceError, RepositoryUnavailable
from common.names import shorten
from inference_worker.remote.index import Entry
from inference_worker.remote.location import Location

log = logging.getLogger(__name__)

T = TypeVar("T")

#: One request reads so much of a file, and so many run at a time: what a single connection to S3 carries is little.
RANGE_BYTES = 4 << 20
RANGES = 4
#: A request that fails is made again so often, after random waits whose bound doubles from the first to the longest.
TRIES = 5
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
#: aiohttp ends a response that takes five minutes; weights take longer. A connection that is silent is given up.
CONNECT_S = 10.0
SILENT_S = 30.0
#: What a store's own facts about a file call its version.
_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created")
#: Answers of HTTP that are different a moment later, beside those of a server at fault (500 and up).
_PASSING_STATUS = (408, 425, 429)
#: botocore's and google-auth's errors about credentials, by name: neither is imported for this.
_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "DefaultCredentialsError")
#: Looked for together, so that what is missing is told before anything is fetched.
_PACKAGES = ("fsspec", "filelock", "tenacity")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


class Store:
    """Reads one repository's files. Each method raises ConfigError or RepositoryUnavailable."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._files, self._root = _open(location)

    def read(self, path: str, most_bytes: int) -> bytes | None:
        """A small file as a whole; None where there is none. Raises ConfigError where it is over `most_bytes`."""
        data = self._retried(lambda: self._read_small(path, most_bytes + 1), path)
        if data is not None and len(data) > most_bytes:
            raise ConfigError(f"{self._shown(path)} has more than {most_bytes} bytes, the bound for such a file")
        return data

    def listed(self) -> list[Entry]:
        """Every file that the store lists, with its version. Raises ConfigError for links and files without one."""
        found = self._retried(self._find, "")
        return [self._entry(path, facts) for path, facts in found.items() if _is_file(path, facts)]

    def chunks(self, path: str, start: int, size: int) -> Iterator[bytes]:
        """The content of a file of `size` bytes from `start` on; the first one is empty where it begins at 0 instead.

        Each may raise RepositoryUnavailable: call again with what is there by then. Made by nobody here: a loop
        around it knows how far it came.
        """
        try:
            yield from self._ranges(path, start, size) if self.location.lists else self._stream(path, start, size)
        except Exception as error:
            raise self._translated(error, path) from error

    def version(self, path: str) -> str:
        """What tells whether a listed file is still the one that was listed."""
        return _version(self._retried(lambda: self._files.info(f"{self._root}/{path}"), path))

    def retried(self, action: Callable[[], T]) -> T:
        """What `action` gives; made again after RepositoryUnavailable, ever later, before that is raised."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        return Retrying(
            retry=retry_if_exception_type(RepositoryUnavailable),
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(FIRST_WAIT_S, LONGEST_WAIT_S),
            before_sleep=lambda state: log.info("%s; tried again", state.outcome and state.outcome.exception()),
            reraise=True,
        )(action)

    def _retried(self, action: Callable[[], T], path: str) -> T:
        def attempt() -> T:
            try:
                return action()
            except Exception as error:
                raise self._translated(error, path) from error

        return self.retried(attempt)

    def _read_small(self, path: str, most_bytes: int) -> bytes | None:
        try:
            if self.location.lists:
                data: bytes = self._files.cat_file(f"{self._root}/{path}", start=0, end=most_bytes)
                return data
            with self._open_stream(path, {}) as file:
                return b"".join(_read_on(file, most_bytes))
        except FileNotFoundError:
            return None

    def _find(self) -> dict[str, dict[str, Any]]:
        self._files.invalidate_cache()
        found: dict[str, dict[str, Any]] = self._files.find(self._root, detail=True)
        return found

    def _entry(self, name: str, facts: dict[str, Any]) -> Entry:
        path = name.removeprefix(f"{self._root}/")
        if path == name:
            raise ConfigError(f"{self.location.shown} is a file; name the folder of a model or of a repository")
        if facts.get("islink"):
            raise ConfigError(f"{self._shown(path)} is a link; put the file itself there")
        version = _version(facts)
        if not version:
            raise ConfigError(
                f"this store tells no version of {self._shown(path)}; write an index by `models index` and put it there"
            )
        return Entry(path, int(facts.get("size") or 0), etag=version)

    def _ranges(self, path: str, start: int, size: int) -> Iterator[bytes]:
        name = f"{self._root}/{path}"
        cuts = iter(range(start, size, RANGE_BYTES))
        while batch := list(itertools.islice(cuts, RANGES)):
            ends = [min(cut + RANGE_BYTES, size) for cut in batch]
            for cut, end, data in zip(
                batch, ends, self._files.cat_ranges([name] * len(batch), batch, ends, on_error="raise"), strict=True
            ):
                if len(data) != end - cut:
                    raise OSError(f"{len(data)} bytes came where {end - cut} were asked for")
                yield data

    def _stream(self, path: str, start: int, size: int) -> Iterator[bytes]:
        with self._open_stream(path, {"Range": f"bytes={start}-"} if start else {}) as file:
            if start and file.r.status != 206:
                # This server knows no ranges: it sends the whole again.
                yield b""
                start = 0
            # One byte more tells a file that is longer than its index says.
            yield from _read_on(file, size - start + 1)

    def _open_stream(self, path: str, headers: dict[str, str]) -> Any:
        # With a size it does not ask for one first, and with no block size it streams.
        return self._files.open(
            self.location.file(path), block_size=0, size=1, headers={"Accept-Encoding": "identity", **headers}
        )

    def _shown(self, path: str) -> str:
        return f"{shorten(path)} of {self.location.shown}" if path else self.location.shown

    def _translated(self, error: Exception, path: str) -> InferenceError:
        if isinstance(error, InferenceError):
            return error
        what, status = self._shown(path), getattr(error, "status", None)
        if isinstance(error, FileNotFoundError):
            return ConfigError(f"there is no {what}")
        if isinstance(error, PermissionError) or status in (401, 403, 407) or type(error).__name__ in _CREDENTIALS:
            return ConfigError(f"{what} may not be read with the credentials that are set: {self._reason(error)}")
        wrong = isinstance(status, int) and 400 <= status < 500 and status not in _PASSING_STATUS
        if wrong or (isinstance(error, OSError) and error.errno == errno.EINVAL):
            return ConfigError(f"{what} cannot be read: {self._reason(error)}")
        return RepositoryUnavailable(f"{what} cannot be reached: {self._reason(error)}")

    def _reason(self, error: Exception) -> str:
        text = " ".join(self.location.redact(str(error)).split())
        return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__

    def __repr__(self) -> str:
        return f"Store({self.location.shown})"


def _open(location: Location) -> tuple[Any, str]:
    """(the file system, the repository's path in it). Raises ConfigError where the store's package is missing."""
    extra = _EXTRAS.get(location.scheme, "remote")
    try:
        for name in _PACKAGES:
            import_module(name)
        from fsspec.core import url_to_fs

        files, root = url_to_fs(location.base, **_options(location))
    except ImportError as error:
        raise ConfigError(
            f"{location.scheme}:// needs a package that is not installed: {location.redact(str(error))}; "
            f"pip install 'inference-worker[{extra}]'"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{location.shown} cannot be opened: {location.redact(str(error))}") from error
    return files, str(root).rstrip("/")


def _options(location: Location) -> dict[str, Any]:
    if location.lists:
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}


def _read_on(file: Any, most_bytes: int) -> Iterator[bytes]:
    """What `file` gives until its end, at most `most_bytes`."""
    while most_bytes > 0 and (data := file.read(min(most_bytes, 1 << 20))):
        most_bytes -= len(data)
        yield data


def _is_file(name: str, facts: dict[str, Any]) -> bool:
    # Stores without folders hold empty files in their place.
    return facts.get("type") != "directory" and not name.endswith("/")


def _version(facts: dict[str, Any]) -> str:
    name = next((name for name in _VERSIONS if facts.get(name)), None)
    if name is None:
        return ""
    value = facts[name]
    # A listing may tell a time as a number, and the file itself as a date.
    return f"{name}={value.timestamp() if isinstance(value, datetime) else value}"
