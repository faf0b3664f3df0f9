"""deploy/redis/users.acl: each user can do all that is his, and nothing else."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager
from pathlib import Path

import msgpack
import numpy as np
import pytest
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from common.connect import connect
from common.embedded import EmbeddedRedis
from common.errors import ConfigError
from common.keys import PoolKeys
from common.orders import LOAD
from common.protocol import Request, encode_request
from common.tensor import to_tensor
from gateway import AsyncClient, Client
from gateway.admin.manage import Manager
from gateway.admin.pools import Admin
from inference_worker.processes.exitcodes import Exit
from tests.security.guarded import POOL, USERS, Guarded, password
from tests.support.command import CommandLine
from tests.support.gateways import gateway
from tests.support.http import ask
from tests.support.running import workers
from tests.support.scaling import write_scaling
from tests.support.waiting import wait_until

MODELS = Path(__file__).parents[1] / "support" / "models" / "commands.py"
KEYS = PoolKeys(POOL)
OTHER = PoolKeys("gpu-pool-b")

MORTAL = """
import os
from pathlib import Path
from inference_worker import model

@model(inputs={"x": "FP32[]"})
def mortal(x):
    if x[0] < 0 and not Path(__file__).with_name("mended").exists():
        os._exit(9)
    return x
"""


def raw_request(request_id: str, inbox: str, text: str = "hello") -> bytes:
    return encode_request(Request(request_id, "shout", {"text": to_tensor(text)}, reply_to=KEYS.inbox(inbox)))


@contextmanager
def serving(server: Guarded):
    """Real workers, as the user `worker`; at the end nothing that anybody needed was refused."""
    with workers(server.url("worker"), POOL, MODELS):
        yield
    assert server.refused() == []


def test_the_file_as_it_is_shipped_lets_nobody_in(tmp_path: Path) -> None:
    copy = tmp_path / "users.acl"
    copy.write_text(USERS.read_text())

    with pytest.raises(ConfigError, match="ended at once"), EmbeddedRedis(config=[f'aclfile "{copy}"']):
        pass


def test_without_a_name_and_a_password_nobody_is_let_in(wiped: Guarded) -> None:
    client = Client(f"unix://{wiped.socket}", pool=POOL, timeout_s=5)

    with client, pytest.raises(ConfigError, match="Redis refuses the user"):
        client.infer("shout", "hello")


@pytest.mark.parametrize("user", ["producer", "gateway"])
def test_our_client_works_as(user: str, wiped: Guarded) -> None:
    with serving(wiped), Client(wiped.url(user), pool=POOL, tenant="acme", timeout_s=20) as client:
        answers = list(client.map("shout", [f"text {number}" for number in range(100)]))
        first, again = client.infer("span", [1.0, 2.0]), client.infer("span", [1.0, 2.0])
        large = client.infer("span", np.arange(200_000, dtype=np.float32))
        client.submit("shout", "given up").cancel()

    assert [answer["output"].item() for answer in answers] == [f"TEXT {number}" for number in range(100)]
    assert (first.cached, again.cached) == (False, True)
    assert large["most"].item() == 199_999


def test_our_asyncio_client_works_as_producer(wiped: Guarded) -> None:
    async def ask() -> str:
        async with AsyncClient(wiped.url("producer"), pool=POOL, timeout_s=20) as client:
            (await client.submit("shout", "given up")).cancel()
            return (await client.infer("shout", "hello"))["output"].item()

    with serving(wiped):
        assert asyncio.run(ask()) == "HELLO"


def test_a_long_reply_is_fetched_by_its_key(wiped: Guarded) -> None:
    with serving(wiped), Client(wiped.url("producer"), pool=POOL, timeout_s=20) as client:
        answer = client.infer("scaled", np.ones(100_000, dtype=np.float32), parameters={"by": 2.0})

    assert answer["output"].sum() == 200_000


def test_a_raw_producer_works_with_xadd_and_blpop(wiped: Guarded) -> None:
    with serving(wiped), wiped.client("raw-acme") as client:
        client.execute_command("XADD", KEYS.streams[1], "NOMKSTREAM", "*", "d", raw_request("acme.1", "acme.desk"))
        _, pushed = client.blpop([KEYS.inbox("acme.desk")], 20)
        stored = client.get(KEYS.reply("acme.1"))

    assert pushed == stored
    assert msgpack.unpackb(pushed)["outputs"]["output"]["data"] == ["HELLO"]


def test_a_worker_may_look_at_its_pool_for_its_metrics(wiped: Guarded) -> None:
    with serving(wiped), wiped.client("worker") as client:
        [pool] = Admin(client).snapshot([POOL]).pools

    assert pool.serving == 1


def test_the_operator_sees_and_steers(wiped: Guarded, shell: CommandLine, tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_scaling(models, POOL, "1", 1)
    operator = {"INFERENCE_WORKER_BROKER": wiped.url("operator")}
    with workers(wiped.url("worker"), POOL, models):
        write_scaling(models, POOL, "2", 2)
        commands = [
            shell.run("models", "load", "scale:2", "--pool", POOL, **operator),
            shell.run("models", "reload", "scale", **operator),
            shell.run("models", "list", "--json", **operator),
            shell.run("models", "alias", "scale", "prod=2", **operator),
            shell.run("models", "split", "scale", "1=1", "2=3", **operator),
            shell.run("models", "split", "scale", "--clear", **operator),
            shell.run("models", "unload", "scale:1", **operator),
            shell.run("status", "--interval", "1", "--by-model", "--json", **operator),
        ]
    forgotten = shell.run("pools", "forget", POOL, **operator)

    assert [done.code for done in commands] == [0] * len(commands), commands
    shown = json.loads(commands[-1].out)
    assert shown["pools"][0]["name"] == POOL
    assert shown["memory"]["used"] > 0
    assert forgotten.code == 0
    assert wiped.refused() == []


def test_the_operator_lists_retries_and_purges_dead_letters(wiped: Guarded, shell: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mortal.py").write_text(MORTAL)
    operator = {"INFERENCE_WORKER_BROKER": wiped.url("operator")}
    with workers(wiped.url("worker"), POOL, tmp_path / "mortal.py", options=["--max-deliveries", "1"]):
        with Client(wiped.url("producer"), pool=POOL, timeout_s=30) as client:
            for _ in range(2):
                with pytest.raises(Exception, match="workers died"):
                    client.infer("mortal", -1.0)
        listed = shell.run("dead", "list", "--pool", POOL, "--json", **operator)
        first, second = (json.loads(line)["id"] for line in listed.out.splitlines())
        shown = shell.run("dead", "show", first, "--pool", POOL, **operator)
        (tmp_path / "mended").touch()
        retried = shell.run("dead", "retry", first, "--pool", POOL, **operator)
        purged = shell.run("dead", "purge", second, "--pool", POOL, **operator)

    assert json.loads(shown.out)["model"] == "mortal"
    assert retried.out == "put back 1 of 1 letters\n"
    assert purged.out == "removed 1 letters\n"
    assert wiped.refused() == []


def test_the_operator_sets_limits_and_gives_keys(wiped: Guarded, shell: CommandLine) -> None:
    operator = {"INFERENCE_WORKER_BROKER": wiped.url("operator")}
    commands = [
        shell.run("limits", "set", "--pool", POOL, "--backlog", "70", "--bytes", "2GiB", **operator),
        shell.run("limits", "set", "--pool", POOL, "--tenant", "acme", "--rate", "5", **operator),
        shell.run("limits", "show", "--pool", POOL, "--json", **operator),
        shell.run("limits", "clear", "--pool", POOL, "--tenant", "acme", **operator),
        shell.run("keys", "create", "acme", **operator),
        shell.run("keys", "list", **operator),
    ]

    assert [done.code for done in commands] == [0] * len(commands), commands
    assert json.loads(commands[2].out)["backlog"] == 70
    assert wiped.refused() == []


def test_the_operator_watches_traces_and_examines(wiped: Guarded, shell: CommandLine) -> None:
    operator = {"INFERENCE_WORKER_BROKER": wiped.url("operator")}
    wiped.refused()
    with serving(wiped), Client(wiped.url("producer"), pool=POOL, timeout_s=20) as client:
        handle = client.submit("shout", "hello")
        handle.result()
        raw = wiped.admin.xadd(KEYS.streams[2], {"d": b"unreadable"})
        done = [
            shell.run("trace", handle.request_id, **operator),
            shell.run("trace", raw.decode(), "--pool", POOL, **operator),
            shell.run("top", "--once", "--interval", "1", **operator),
            shell.run("doctor", "--no-devices", **operator),
            shell.run("logs", "level", POOL, "info", **operator),
        ]

    assert "answered" in done[0].out
    assert [one.code for one in done] == [0, Exit.NOT_FOUND, 0, 0, 0], done
    assert wiped.refused() == []


def test_limits_hold_for_producers(wiped: Guarded, shell: CommandLine) -> None:
    operator = {"INFERENCE_WORKER_BROKER": wiped.url("operator")}
    limits = ("--rate", "1000", "--light", "1", "--in-flight", "100", "--bytes", "1GiB")
    pool_limits, tenant_limits = (*limits[:4], *limits[6:]), ("--tenant", "acme", *limits[:2], *limits[4:6])
    assert shell.run("limits", "set", "--pool", POOL, *pool_limits, **operator).code == 0
    assert shell.run("limits", "set", "--pool", POOL, *tenant_limits, **operator).code == 0

    with serving(wiped), Client(wiped.url("producer"), pool=POOL, tenant="acme", timeout_s=20) as client:
        assert len(list(client.map("shout", ["x"] * 200))) == 200


def test_the_http_front_works_as_gateway_and_keeps_tenants_apart(
    wiped: Guarded, shell: CommandLine, tmp_path: Path
) -> None:
    operator = {"INFERENCE_WORKER_BROKER": wiped.url("operator")}
    acme, beta = (
        {"authorization": f"Bearer {shell.run('keys', 'create', tenant, **operator).out.split()[0]}"}
        for tenant in ("acme", "beta")
    )
    with serving(wiped), gateway(wiped.url("gateway"), POOL, tmp_path, "--keys", "broker") as door:
        cached = [ask(door.address, "POST", "/models/span", {"x": [1.0, 2.0]}, **who) for who in (acme, acme, beta)]
        listed = ask(door.address, "GET", "/models", **acme)
        nobody = ask(door.address, "POST", "/models/span", {"x": [1.0, 2.0]})
        path = ask(door.address, "POST", "/jobs", {"model": "shout", "inputs": {"text": "hi"}}, **acme).headers[
            "location"
        ]
        done = wait_until(
            lambda: one if (one := ask(door.address, "GET", path, **acme).json)["status"] == "done" else None,
            "it is done",
        )
        foreign = [ask(door.address, method, path, **beta) for method in ("GET", "DELETE")]
        removed = ask(door.address, "DELETE", path, **acme)

    assert [one.headers.get("x-cache") == "hit" for one in cached] == [False, True, False]
    assert (listed.status, nobody.status) == (200, 401)
    assert done["result"]["outputs"] == {"output": "HI"}
    assert [one.status for one in foreign] == [404, 404]
    assert removed.status == 204


def test_a_backlog_bound_of_the_workers_command_is_set(wiped: Guarded) -> None:
    with workers(wiped.url("worker"), POOL, MODELS, options=["--max-backlog", "9"]):
        assert wiped.admin.hget(KEYS.limits, "backlog") == b"9"
    assert wiped.refused() == []


# -- what is refused --------------------------------------------------------------------------------------------------

USERS_AND_POOLS = ["raw-acme", "producer", "gateway", "worker", "operator", "scaler"]
NOBODYS = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("RANDOMKEY",),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("SHUTDOWN",),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "worker", "nopass"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("MONITOR",),
    ("SCRIPT", "FLUSH"),
    ("REPLICAOF", "no", "one"),
    ("MODULE", "LIST"),
    ("SAVE",),
    ("SUBSCRIBE", "x"),
    ("PUBLISH", "x", "y"),
    ("RENAME", KEYS.streams[1], "elsewhere"),
    ("DUMP", KEYS.streams[1]),
    ("RESTORE", KEYS.reply("x"), 0, b"x"),
    ("XTRIM", KEYS.streams[1], "MAXLEN", 0),
    ("XGROUP", "DESTROY", KEYS.streams[1], "workers"),
    ("GET", "other:prefix"),
    ("GET", "iwx"),
]


@pytest.mark.parametrize("user", USERS_AND_POOLS)
@pytest.mark.parametrize("command", NOBODYS, ids=lambda command: " ".join(map(str, command[:2])))
def test_nobody_may(user: str, command: tuple[object, ...], wiped: Guarded) -> None:
    refused(wiped, user, *command)


REFUSED = {
    "raw-acme": [
        ("XRANGE", KEYS.streams[1], "-", "+"),
        ("XREAD", "STREAMS", KEYS.streams[1], "0"),
        ("XREADGROUP", "GROUP", "workers", "me", "STREAMS", KEYS.streams[1], ">"),
        ("XDEL", KEYS.streams[1], "0-1"),
        ("SET", KEYS.reply("acme.1"), "planted"),
        ("SET", KEYS.streams[1], "gone"),
        ("DEL", KEYS.streams[1]),
        ("RPUSH", KEYS.inbox("acme.desk"), "x"),
        ("EVAL", "return 1", 0),
        ("GET", KEYS.reply("beta.1")),
        ("GET", KEYS.reply("b2:00")),
        ("GET", KEYS.payload("beta.1")),
        ("BLPOP", KEYS.inbox("beta.desk"), 1),
        ("XADD", KEYS.dead, "*", "a", "b"),
        ("XADD", KEYS.control, "*", "d", "order"),
        ("XADD", OTHER.streams[1], "*", "d", "x"),
    ],
    "producer": [
        ("XREADGROUP", "GROUP", "workers", "me", "STREAMS", KEYS.streams[1], ">"),
        ("XDEL", KEYS.streams[1], "0-1"),
        ("XRANGE", KEYS.dead, "-", "+"),
        ("XADD", KEYS.control, "*", "d", "order"),
        ("HSET", KEYS.models, "m:1", "x"),
        ("HSET", KEYS.traffic, "m", "x"),
        ("HSET", KEYS.limits, "backlog", 1),
        ("ZADD", KEYS.leases, 1, "me"),
        ("HGETALL", "iw:access"),
        ("GET", "iw:job:x"),
        ("HGETALL", KEYS.workers),
        ("SMEMBERS", "iw:pools"),
        ("XADD", OTHER.streams[1], "*", "d", "x"),
        ("GET", OTHER.reply("x")),
        ("BLPOP", OTHER.inbox("x"), 1),
    ],
    "gateway": [
        ("XDEL", KEYS.streams[1], "0-1"),
        ("XRANGE", KEYS.dead, "-", "+"),
        ("XADD", KEYS.control, "*", "d", "order"),
        ("HSET", KEYS.limits, "backlog", 1),
        ("HSET", "iw:access", "key", "x"),
        ("SMEMBERS", "iw:pools"),
    ],
    "worker": [
        ("XADD", OTHER.streams[1], "*", "d", "x"),
        ("XREADGROUP", "GROUP", "workers", "me", "STREAMS", OTHER.streams[1], ">"),
        ("GET", OTHER.reply("x")),
        ("BLPOP", KEYS.inbox("x"), 1),
        ("HGETALL", OTHER.workers),
        ("SMEMBERS", "iw:pools"),
    ],
    "operator": [
        ("XREADGROUP", "GROUP", "workers", "me", "STREAMS", KEYS.streams[1], ">"),
        ("XACK", KEYS.streams[1], "workers", "0-1"),
        ("RPUSH", KEYS.inbox("x"), "planted"),
        ("GET", "iw:job:x"),
        ("XCLAIM", KEYS.streams[1], "workers", "me", 0, "0-1"),
        ("GET", "elsewhere"),
    ],
}


@pytest.mark.parametrize(
    ("user", "command"),
    [(user, command) for user, commands in REFUSED.items() for command in commands],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value[:2])),
)
def test_a_user_may_not(user: str, command: tuple[object, ...], wiped: Guarded) -> None:
    refused(wiped, user, *command)


@pytest.mark.parametrize("user", ["producer", "gateway", "worker", "operator"])
@pytest.mark.parametrize("command", ["'FLUSHALL'", "'KEYS', '*'", "'GET', 'elsewhere'"])
def test_a_script_may_do_no_more_than_its_user(user: str, command: str, wiped: Guarded) -> None:
    with wiped.client(user) as client, pytest.raises(ResponseError, match=r"can't|ACL failure"):
        client.execute_command("EVAL", f"return redis.call({command})", 0)


def test_an_order_of_a_producer_is_a_configuration_error(wiped: Guarded) -> None:
    wiped.admin.zadd(KEYS.leases, {"host-1-0-0": 2**45})
    with wiped.client("producer") as client, pytest.raises(Exception, match="Redis refuses"):
        Manager(client).give(POOL, LOAD, "shout", None, timeout_s=1)


@pytest.mark.parametrize("user", USERS_AND_POOLS)
def test_another_ones_password_is_none(user: str, wiped: Guarded) -> None:
    other = next(one for one in USERS_AND_POOLS if one != user)
    client = connect(f"unix://{user}:{password(other)}@{wiped.socket}")

    with client, pytest.raises(AuthenticationError):
        client.ping()


def refused(server: Guarded, user: str, *command: object) -> None:
    with server.client(user) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command)
