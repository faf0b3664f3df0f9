"""Which broker is meant where none is named: that of the environment, of an `up` that runs here, or the usual port.

An `up` announces its URL in one small file that only its user can read or write. Its folder has a name that
anybody can guess, in a place where anybody may make it first: one that is another user's, or open to others, is
not looked into.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DEFAULT_BROKER = "redis://127.0.0.1:6379"
BROKER_VARIABLE = "INFERENCE_WORKER_BROKER"


def default_broker() -> str:
    """The URL in the environment, else that of a running `up`, else the usual port's."""
    return os.environ.get(BROKER_VARIABLE) or local_broker() or DEFAULT_BROKER


def local_broker() -> str | None:
    """The URL announced by the `up` that was started last of those that run, or None."""
    found = max((one for path in _files() if (one := _read(path)) is not None), default=None)
    return found[1] if found else None


@contextmanager
def announced(url: str, complain: Callable[[OSError], None]) -> Iterator[None]:
    """Announce `url` until the block ends; `complain` is told why where that is not possible."""
    path = _folder() / str(os.getpid())
    try:
        _write(path, url)
    except OSError as error:
        complain(error)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        with suppress(OSError):
            path.parent.rmdir()


def _folder() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"inference-worker-{os.getuid()}"


def distrusted() -> str | None:
    """Why the folder of announcements is not looked into, where that is so; None where it is ours, or not there."""
    folder = _folder()
    try:
        facts = folder.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return str(error)
    if not stat.S_ISDIR(facts.st_mode):
        return f"{folder} is no folder"
    if facts.st_uid != os.getuid():
        return f"{folder} belongs to another user (id {facts.st_uid})"
    return None if _is_ours(facts) else f"{folder} is open to other users (mode {stat.S_IMODE(facts.st_mode):o})"


def _files() -> list[Path]:
    """The files of processes that run."""
    folder = _folder()
    if distrusted() or not folder.exists():
        return []
    return [path for path in folder.iterdir() if path.name.isdecimal() and _alive(int(path.name))]


def _read(path: Path) -> tuple[int, str] | None:
    """(when it was written, the URL); None for a file that another user could have written."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:
            facts = os.fstat(file.fileno())
            return (facts.st_mtime_ns, file.read()) if _is_ours(facts) else None
    except OSError:
        return None


def _write(path: Path, url: str) -> None:
    """Raises OSError. In a folder that others may enter they could plant the file before us, and read the password."""
    with suppress(FileExistsError):
        path.parent.mkdir(mode=0o700)
    if why := distrusted():
        raise PermissionError(f"{why}; remove it, or set XDG_RUNTIME_DIR to a folder of your own")
    _sweep(path.parent)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(url)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left, one with our own id among them."""
    for path in folder.iterdir():
        if path.name == str(os.getpid()) or (path.name.isdecimal() and not _alive(int(path.name))):
            path.unlink(missing_ok=True)


def _is_ours(facts: os.stat_result) -> bool:
    return facts.st_uid == os.getuid() and not facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        # A file's name may be a number that no process can have.
        return False
    except PermissionError:
        return True
    return True
