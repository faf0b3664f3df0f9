"""TLS with certificates of both sides, through the options of the broker URL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from common.connect import broker_errors, connect, connect_async
from common.errors import AccessDenied, BrokerUnavailable, ConfigError, InferenceError
from gateway import Client
from tests.support.command import CommandLine
from tests.support.running import workers
from tests.support.tls import HOST, Authority, Identity, tls_redis

MODELS = Path(__file__).parents[1] / "support" / "models" / "commands.py"


class Guarded:
    """A Redis that wants to see a certificate, with one that it accepts."""

    def __init__(self, port: int, authority: Authority) -> None:
        self.port = port
        self.authority = authority
        self.client = authority.issue("client")

    def url(self, believed: Authority | None = None, own: Identity | None = None, scheme: str = "rediss") -> str:
        options = {"ssl_ca_certs": (believed or self.authority).certificate}
        if own is not None:
            options |= {"ssl_certfile": own.certificate, "ssl_keyfile": own.key}
        return f"{scheme}://{HOST}:{self.port}?{urlencode(options)}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    with tls_redis(authority) as port:
        yield Guarded(port, authority)


def ping(url: str) -> bool:
    with connect(url) as client, broker_errors():
        return bool(client.ping())


async def ping_async(url: str) -> bool:
    async with connect_async(url) as client:
        with broker_errors():
            return bool(await client.ping())


def both(url: str) -> list[bool]:
    return [ping(url), asyncio.run(ping_async(url))]


def test_with_a_certificate_of_the_authority_both_clients_are_let_in(guarded: Guarded) -> None:
    assert both(guarded.url(own=guarded.client)) == [True, True]


def test_workers_and_clients_talk_over_tls(guarded: Guarded) -> None:
    url = guarded.url(own=guarded.client)

    with workers(url, "p", MODELS), Client(url, pool="p", timeout_s=20) as client:
        assert client.infer("shout", "hello")["output"].item() == "HELLO"


def test_without_a_certificate_nobody_is_let_in(guarded: Guarded) -> None:
    # Which of the two errors depends on whether the handshake's last word comes before the connection's end.
    with pytest.raises(BrokerUnavailable):
        ping(guarded.url())
    with pytest.raises(BrokerUnavailable):
        asyncio.run(ping_async(guarded.url()))


def test_a_certificate_of_another_authority_is_none(guarded: Guarded, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").issue("strange-client")

    with pytest.raises(BrokerUnavailable):
        ping(guarded.url(own=stranger))


@pytest.mark.parametrize("look", [ping, lambda url: asyncio.run(ping_async(url))], ids=["sync", "asyncio"])
def test_a_broker_of_another_authority_is_not_believed(look, guarded: Guarded, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")

    with pytest.raises(AccessDenied, match=r"certificate is not believed \(.+\); look at ssl_ca_certs"):
        look(guarded.url(believed=other, own=guarded.client))


def test_that_is_a_configuration_error_at_once_for_a_client_and_a_command(
    guarded: Guarded, tmp_path: Path, shell: CommandLine
) -> None:
    url = guarded.url(believed=Authority(tmp_path, "other"), own=guarded.client)

    with Client(url, pool="p", timeout_s=60) as client, pytest.raises(ConfigError, match="is not believed"):
        client.infer("shout", "hello")
    done = shell.run("status", INFERENCE_WORKER_BROKER=url)

    assert done.code == 78
    assert "is not believed" in done.error


def test_a_plain_connection_to_a_tls_port_gets_no_answer(guarded: Guarded) -> None:
    with pytest.raises(BrokerUnavailable):
        ping(f"redis://{HOST}:{guarded.port}")


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
@pytest.mark.parametrize("connect_", [connect, connect_async])
def test_a_file_that_is_not_there_is_told_before_anything_connects(connect_, option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} '/nowhere.pem' cannot be read"):
        connect_(f"rediss://localhost?{option}=/nowhere.pem")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("ssl_cert_reqs=perhaps", "ssl_cert_reqs must be one of required, optional, none"),
        ("ssl_check_hostname=perhaps", "ssl_check_hostname must be true or false"),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        connect(f"rediss://localhost?{options}")


@pytest.mark.parametrize("scheme", ["rediss+sentinel", "rediss+cluster"])
def test_sentinel_and_cluster_take_the_same_options(scheme: str, guarded: Guarded) -> None:
    service = "/mymaster" if scheme == "rediss+sentinel" else ""
    url = guarded.url(own=guarded.client, scheme=scheme).replace("?", f"{service}?")

    # This server lets them in, and is not what they ask it to be.
    with pytest.raises(InferenceError, match=r"SENTINEL|cluster support disabled|Cluster cannot be connected"):
        ping(url)
