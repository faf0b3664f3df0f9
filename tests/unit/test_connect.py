"""Broker URLs: the five forms, what is wrong with the others, and no password in any message."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import redis.asyncio

from common.brokerurl import check_url, hide_password
from common.connect import (
    BLOCK_MS,
    SOCKET_TIMEOUT_S,
    broker_errors,
    connect,
    connect_async,
    error_kind,
    error_text,
    is_silent,
)
from common.embedded import free_port
from common.errors import AccessDenied, BrokerRefuses, BrokerUnavailable, ConfigError, InternalError, Overloaded

ROOT = Path(__file__).parents[2]

GOOD = [
    "redis://localhost",
    "redis://localhost:6380/3",
    "redis://:secret@localhost:6380/0",
    "redis://worker:secret@10.0.0.7",
    "redis://[::1]:6379/0",
    "redis://localhost?db=2",
    "rediss://worker:secret@redis.example.com:6380",
    "rediss://redis.example.com?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required",
    "unix:///run/redis.sock",
    "unix://:secret@/run/redis.sock?db=1",
    "redis+sentinel://one,two:26380/mymaster",
    "rediss+sentinel://:secret@one:26379,two:26379/mymaster?db=1",
    "redis+cluster://one,two:7001",
    "rediss+cluster://:secret@one:7000",
]


@pytest.mark.parametrize("url", GOOD)
def test_every_form_is_understood(url):
    assert check_url(url).scheme == url.partition(":")[0]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "it must start with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"),
        ("localhost:6379", "it must start with redis://"),
        ("http://localhost", "it must start with redis://"),
        ("unix+sentinel:///run/redis.sock", "it must start with redis://"),
        ("redis+other://localhost", "it must start with redis://"),
        ("redis://", "a host is missing"),
        ("redis://:6379", "a host is missing"),
        ("redis+cluster://one,,two", "a host is missing"),
        ("redis://localhost:port", "a port must be a number up to 65535"),
        ("redis://localhost:65536", "a port must be a number up to 65535"),
        ("redis://[::1", "Invalid IPv6 URL"),
        ("redis://localhost/mydb", "behind the host only a database number may stand"),
        (
            "redis+cluster://one/1",
            "behind the host only a database number may stand, such as /0, and none for a Cluster",
        ),
        ("redis+sentinel://one:26379", "the Sentinel form ends in the service's name, such as /mymaster"),
        ("redis://localhost?db=-1", "db must be a number"),
        ("redis://localhost?db=two", "db must be a number"),
        ("redis://localhost?timeout=5", "behind the ? it may set db, password_file only"),
        ("redis://localhost?ssl_ca_certs=/etc/ca.pem", "behind the ? it may set db, password_file only"),
        ("unix://", "the socket's path is missing, such as unix:///run/redis.sock"),
    ],
)
@pytest.mark.parametrize("connect_", [connect, connect_async])
def test_a_malformed_url_is_refused_before_anything_connects(connect_, url, why):
    with pytest.raises(ConfigError) as caught:
        connect_(url)

    assert caught.value.message.startswith(f"broker URL '{hide_password(url)}' is malformed: {why}")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@localhost", "redis://:***@localhost"),
        ("redis://worker:secret@localhost", "redis://worker:***@localhost"),
        ("redis://worker@localhost", "redis://worker@localhost"),
        ("redis://:se@cret@localhost", "redis://:***@localhost"),
        ("redis+sentinel://:secret@one:1,two:2/m", "redis+sentinel://:***@one:1,two:2/m"),
        ("unix://:secret@/run/redis.sock", "unix://:***@/run/redis.sock"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("redis+cluster://one:7000,two:7001", "redis+cluster://one:7000,two:7001"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://localhost?password=secret&db=1", "redis://localhost?password=***"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert hide_password(url).startswith(shown)
    assert "secret" not in hide_password(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret",
        "redis://:secret/0",
        "redis://:secret@",
        "redis://:secret@host:port",
        "redis://:se/cret@localhost",
        "redis://:se#cret@localhost",
        "redis://:se?cret@localhost",
        "redis://user:secret@one,:99999",
        "redis://localhost?password=secret",
        "redis+sentinel://:secret@one",
        "http://:secret@localhost",
        "unix://:secret@",
    ],
)
def test_no_refusal_shows_a_password(url):
    with pytest.raises(ConfigError) as caught:
        check_url(url)

    assert "secret" not in str(caught.value)
    assert "cret" not in str(caught.value).replace("secret", "")
    assert caught.value.__suppress_context__


def test_one_server_gets_its_settings_and_no_retries_of_the_driver():
    client = connect("redis://worker:se%2Fcret@localhost:6380/3")

    settings = client.get_connection_kwargs()
    assert (settings["host"], settings["port"], settings["db"]) == ("localhost", 6380, 3)
    assert (settings["username"], settings["password"]) == ("worker", "se/cret")
    assert settings["retry"].get_retries() == 0
    client.close()


def test_a_blocking_read_ends_long_before_its_socket_times_out():
    assert BLOCK_MS / 1000 * 2 <= SOCKET_TIMEOUT_S


def test_a_sentinel_client_asks_all_hosts_and_connects_to_the_service():
    client = connect("redis+sentinel://:secret@one,two:26380/mymaster?db=2")

    pool = client.connection_pool
    hosts = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert pool.service_name == "mymaster"
    assert pool.connection_kwargs["db"] == 2
    assert [(one["host"], one["port"], one["password"]) for one in hosts] == [
        ("one", 26379, "secret"),
        ("two", 26380, "secret"),
    ]
    client.close()


def test_connecting_is_left_to_the_first_command():
    nobody = f"redis://127.0.0.1:{free_port()}"

    client = connect(nobody)

    with pytest.raises(BrokerUnavailable, match=r"^Redis does not answer: "), broker_errors():
        client.ping()
    client.close()


def test_a_cluster_that_is_not_there_is_unavailable_at_once():
    with pytest.raises(BrokerUnavailable, match=r"^Redis does not answer: "):
        connect(f"redis+cluster://127.0.0.1:{free_port()}")


def test_the_asyncio_twin_connects_to_the_same_server(redis_url):
    async def ping() -> bool:
        client = connect_async(redis_url)
        async with client:
            return bool(await client.ping())

    assert asyncio.run(ping())


#: Prints whether parent and child of a fork have different connections, and the parent the same one as before.
FORK = """
import os, sys
from common.connect import connect
client = connect(sys.argv[1])
before = client.execute_command("CLIENT", "ID")
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, b"%d" % client.execute_command("CLIENT", "ID"))
    os._exit(0)
os.wait()
print(int(os.read(read, 20)) != before == client.execute_command("CLIENT", "ID"))
"""


def test_a_process_that_forks_has_a_connection_of_its_own(redis_url):
    """Two processes that read from one socket would get each other's replies."""
    told = subprocess.run(
        [sys.executable, "-c", FORK, redis_url], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )

    assert told.stdout == "True\n"


# -- the driver's errors as ours --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("reset"),
        redis.exceptions.TimeoutError("timed out"),
        redis.exceptions.BusyLoadingError("loading"),
        redis.exceptions.ReadOnlyError("replica"),
        redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        redis.exceptions.ClusterDownError("down"),
        redis.exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"),
        redis.exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
        # How Redis 6.2 tells of an error inside a script.
        redis.exceptions.ResponseError("Error running script (call to f_0a): @user_script:9: -OOM command not allowed"),
        redis.exceptions.ResponseError(
            "Error running script (call to f_0a): @user_script:9: -READONLY You can't write"
        ),
        ConnectionResetError("reset"),
    ],
    ids=str,
)
def test_what_may_pass_is_unavailable(error):
    with pytest.raises(BrokerUnavailable) as caught, broker_errors():
        raise error

    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
        redis.exceptions.ResponseError("Error running script (call to f_0a): @user_script:9: -OOM command not allowed"),
    ],
    ids=str,
)
def test_a_redis_that_answers_with_a_refusal_is_not_one_that_does_not_answer(error):
    with pytest.raises(BrokerRefuses, match=r"^Redis refuses for now: "), broker_errors():
        raise error


@pytest.mark.parametrize(
    "text",
    [
        "OOM not allowed.",
        "Error running script (call to f_0a): @user_script:23: @user_script: 23: -OOM not allowed.",
        "OOM not allowed. script: 0a1b, on @user_script:248.",
    ],
)
def test_no_place_in_a_script_of_ours_is_told_of_a_refusal(text):
    assert error_text(redis.exceptions.ResponseError(text)) == "OOM not allowed."


@pytest.mark.parametrize(
    ("error", "silent"),
    [
        (redis.exceptions.TimeoutError("Timeout reading from socket"), True),
        (redis.exceptions.TimeoutError("Timeout connecting to server"), False),
        (redis.exceptions.ConnectionError("Connection refused"), False),
    ],
    ids=str,
)
def test_only_a_redis_that_accepts_a_connection_can_be_silent(error, silent):
    with pytest.raises(BrokerUnavailable) as caught, broker_errors():
        raise error

    assert is_silent(caught.value) == silent


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.AuthenticationError("invalid username-password pair"),
        redis.exceptions.NoPermissionError("this user has no permissions to run the 'evalsha' command"),
        # Inside a script, as Redis 7 and 6.2 tell of it.
        redis.exceptions.ResponseError("ACL failure in script: User u has no permissions to run the 'zadd' command"),
        redis.exceptions.ResponseError(
            "Error running script (call to f_0a): @user_script:16: The user executing the script can't run this command"
        ),
    ],
    ids=str,
)
def test_a_refused_password_or_permission_may_pass_as_what_is_away_may(error):
    refused = pytest.raises(AccessDenied, match=r"^Redis refuses the user, the password or a permission")
    with refused as caught, broker_errors():
        raise error

    assert isinstance(caught.value, BrokerUnavailable)


def test_a_cluster_of_which_every_node_refuses_the_password_is_no_cluster_that_is_away():
    with pytest.raises(AccessDenied), broker_errors():
        raise redis.exceptions.RedisClusterException("cannot be connected") from redis.exceptions.AuthenticationError()


def test_a_refused_command_is_our_bug():
    with pytest.raises(InternalError, match=r"This is a bug\.$"), broker_errors():
        raise redis.exceptions.ResponseError("WRONGTYPE Operation against a key")


@pytest.mark.parametrize("error", [Overloaded("full", 5), KeyError("ours")])
def test_errors_that_are_not_the_drivers_pass_unchanged(error):
    with pytest.raises(type(error)) as caught, broker_errors():
        raise error

    assert caught.value is error


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOGROUP No such key 'iw:{p}:high' or consumer group 'workers'", "NOGROUP"),
        ("Error running script (call to f_0a): @user_script:23: NOGROUP No such key", "NOGROUP"),
        ("Error running script (call to f_0a): @user_script:23: @user_script: 23: -OOM command not allowed", "OOM"),
        ("BUSYGROUP Consumer Group name already exists", "BUSYGROUP"),
        ("unknown command 'NOGROUP-like'", ""),
    ],
)
def test_the_kind_of_an_error_is_redis_own_word(text, kind):
    assert error_kind(redis.exceptions.ResponseError(text)) == kind


def test_an_unknown_script_and_a_broken_connection_have_their_kinds():
    assert error_kind(redis.exceptions.NoScriptError("No matching script.")) == "NOSCRIPT"
    assert error_kind(redis.exceptions.ConnectionError("reset")) == ""


def test_nothing_is_logged_about_a_url(caplog):
    with caplog.at_level(logging.DEBUG):
        connect("redis://:secret@localhost").close()

    assert "secret" not in caplog.text
