"""The broker's password: from a file, and never where anybody else can read it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.brokerurl import check_url, hide_password
from common.connect import broker_errors, connect, connect_async
from common.embedded import EmbeddedRedis
from common.errors import AccessDenied, ConfigError, InferenceError
from gateway import Client
from tests.support.command import MODELS, CommandLine, Running
from tests.support.running import workers
from tests.support.waiting import wait_until

SECRET = "Zv9-quite-unmistakable"


class Locked:
    """A server whose one password is SECRET until it is changed."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self.place = server.url.rpartition("@")[2]
        self.admin = connect(server.url)
        self.admin.execute_command("ACL", "SETUSER", "app", "on", f">{SECRET}", "~*", "&*", "+@all")
        self.url = f"redis://app:{SECRET}@{self.place}"

    def from_file(self, path: Path) -> str:
        return f"redis://app@{self.place}?password_file={path}"


@pytest.fixture
def locked() -> Iterator[Locked]:
    with EmbeddedRedis(tcp=True) as server:
        it = Locked(server)
        with closing(it.admin):
            yield it


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{SECRET}\n")
    return path


def ping(url: str) -> bool:
    with closing(connect(url)) as client, broker_errors():
        return bool(client.ping())


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """What a traceback shows of an error."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


async def ping_async(url: str) -> bool:
    with broker_errors():
        async with connect_async(url) as client:
            return bool(await client.ping())


def test_a_password_comes_from_a_file(locked: Locked, password_file: Path) -> None:
    url = locked.from_file(password_file)

    with closing(connect(url)) as client:
        assert client.ping()
    assert asyncio.run(ping_async(url))


def test_workers_and_clients_take_it_from_there(locked: Locked, password_file: Path) -> None:
    url = locked.from_file(password_file)

    with workers(url, "p", MODELS), Client(url, pool="p", timeout_s=20) as client:
        assert client.infer("shout", "hello")["output"].item() == "HELLO"


def test_a_changed_password_is_read_with_the_next_connection(locked: Locked, password_file: Path) -> None:
    with closing(connect(locked.from_file(password_file))) as client:
        assert client.ping()
        locked.admin.execute_command("ACL", "SETUSER", "app", "resetpass", ">changed")
        password_file.write_text("changed")
        client.connection_pool.disconnect()

        assert client.ping()


def test_without_a_user_it_is_the_default_ones(password_file: Path) -> None:
    with EmbeddedRedis(tcp=True) as server:
        password_file.write_text(server.url.partition(":")[2].partition(":")[2].partition("@")[0])
        url = f"redis://{server.url.rpartition('@')[2]}?password_file={password_file}"
        with closing(connect(url)) as client:
            assert client.ping()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "must hold 1 to 4096 characters"),
        (b"\n", "must hold 1 to 4096 characters"),
        (b"x" * 4097, "must hold 1 to 4096 characters"),
        (b"\xff" + SECRET.encode(), "is not UTF-8"),
    ],
)
def test_a_file_without_a_password_is_told_by_its_name(content: bytes | None, why: str, tmp_path: Path) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)

    with EmbeddedRedis(tcp=True) as server, pytest.raises(AccessDenied, match=why) as caught:
        connect(f"redis://{server.url.rpartition('@')[2]}?password_file={path}").ping()

    assert str(path) in caught.value.message
    assert SECRET not in caught.value.message


def test_a_url_has_one_password() -> None:
    with pytest.raises(ConfigError, match="one of the two is enough") as caught:
        check_url(f"redis://:{SECRET}@host?password_file=/run/secrets/redis")

    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "redis://app@host/2?password_file=/run/secrets/redis",
        "unix:///run/redis.sock?password_file=/run/secrets/redis&db=1",
        "redis+sentinel://app@one,two/mymaster?password_file=/run/secrets/redis",
        "rediss+cluster://one,two?password_file=/run/secrets/redis&ssl_ca_certs=/etc/ca.pem",
    ],
)
def test_every_form_takes_it_and_shows_it(url: str) -> None:
    assert check_url(url)
    assert hide_password(url) == url


# -- where the secret must not be -------------------------------------------------------------------------------------


@pytest.fixture
def fleet(locked: Locked, shell: CommandLine) -> Iterator[Running]:
    """`worker` at its most talkative, on the locked server."""
    options = ["--pool", "p", "--device", "cpu", "--log-level", "debug", MODELS]
    with shell.running("--debug", "worker", *options, INFERENCE_WORKER_BROKER=locked.url) as running:
        running.wait_for(" serves ")
        yield running
        assert running.stop() == 0, running.printed


COMMANDS = [
    ("status", "--interval", "1"),
    ("status", "--interval", "1", "--json"),
    ("models", "list"),
    ("models", "list", "--json"),
    ("models", "load", "shout"),
    ("models", "reload", "shout", "--json"),
    ("models", "alias", "greet", "prod=2"),
    ("models", "split", "greet", "1=1", "2=1"),
    ("top", "--once", "--interval", "1"),
    ("doctor", "--no-devices"),
    ("trace", "no-such-request"),
    ("logs", "level", "p", "debug"),
    ("dead", "list", "--pool", "p"),
    ("dead", "purge", "--all", "--pool", "p"),
    ("infer", "shout", "--pool", "p", "--text", "hello"),
    ("infer", "nothing-such", "--pool", "p", "--text", "hello"),
    ("--debug", "infer", "shout", "--pool", "p", "--json", "{"),
]


@pytest.mark.usefixtures("fleet")
def test_no_command_prints_it(locked: Locked, shell: CommandLine) -> None:
    for arguments in COMMANDS:
        done = shell.run(*arguments, INFERENCE_WORKER_BROKER=locked.url)

        assert SECRET not in done.out + done.err, arguments


def test_neither_logs_nor_process_titles_nor_the_childrens_environment_hold_it(
    fleet: Running, shell: CommandLine
) -> None:
    assert len(shell.processes()) >= 2
    for pid, line in shell.command_lines().items():
        assert SECRET.encode() not in line, pid
    environments = {pid: environment for pid, environment in shell.processes().items() if pid != fleet.process.pid}
    assert environments
    assert not any(SECRET.encode() in environment for environment in environments.values())
    assert SECRET not in fleet.printed


def test_neither_does_redis_in_what_status_reads(locked: Locked, fleet: Running) -> None:
    assert fleet.process.poll() is None
    for key in locked.admin.scan_iter("iw:*"):
        if locked.admin.type(key) == b"hash":
            assert SECRET.encode() not in b"".join(
                value for pair in locked.admin.hgetall(key).items() for value in pair
            )


def test_on_a_command_line_it_is_gone_from_ps_as_soon_as_the_command_runs(locked: Locked, shell: CommandLine) -> None:
    with shell.running("status", "--watch", "--broker", locked.url) as running:
        title = Path(f"/proc/{running.process.pid}/cmdline")
        wait_until(lambda: title.read_bytes().startswith(b"inference-worker: status"), "it has its title")

        assert SECRET.encode() not in title.read_bytes()


WRONG = [
    f"redis://app:{SECRET}@127.0.0.1:1",
    f"redis://app:{SECRET}@no-such-host.invalid:6379",
    f"redis://app:{SECRET}@127.0.0.1:70000",
    f"redis://app:{SECRET}@127.0.0.1/x",
    f"rediss://app:{SECRET}@127.0.0.1:1",
    f"unix://app:{SECRET}@/no/such.sock",
    f"redis+sentinel://app:{SECRET}@127.0.0.1:1/mymaster",
    f"redis+cluster://app:{SECRET}@127.0.0.1:1",
    f"redis://app:{SECRET}@127.0.0.1:6379?password={SECRET}",
    f"redis://app:{SECRET}@127.0.0.1:6379?{SECRET}=1",
    f"http://app:{SECRET}@127.0.0.1",
    f"redis://:{SECRET}",
    f"redis://app:{SECRET}/#?x@host",
]


@pytest.mark.parametrize("url", WRONG)
@pytest.mark.parametrize("ask", [ping, lambda url: asyncio.run(ping_async(url))], ids=["sync", "asyncio"])
def test_no_error_of_a_wrong_url_shows_it_nor_does_its_traceback(ask, url: str) -> None:
    with pytest.raises(InferenceError) as caught:
        ask(url)

    # What names a line of the test would show it too.
    told = [str(error) + repr(error) for error in chain_of(caught.value)]
    assert SECRET not in "".join(told)


def test_no_command_shows_it_in_an_error(locked: Locked, shell: CommandLine) -> None:
    locked.admin.execute_command("ACL", "SETUSER", "app", "resetpass", ">another")
    commands = [("status",), ("--debug", "dead", "list"), ("--debug", "worker", "--device", "cpu", MODELS)]
    for arguments in commands:
        for url, code in ((locked.url, 78), (WRONG[0], None), (WRONG[2], 78)):
            if code is None and "worker" in arguments:
                continue  # It waits for a broker that is away.
            done = shell.run(*arguments, INFERENCE_WORKER_BROKER=url)

            assert done.code == code or (code is None and done.code != 0)
            assert SECRET not in done.out + done.err


def test_neither_a_client_nor_its_parts_show_it(locked: Locked) -> None:
    with Client(locked.url, pool="p") as client:
        shown = [repr(client), repr(client.submit("shout", "x"))]

    assert SECRET not in "".join(shown)
