"""A Redis that lets nobody in: at the first contact, and after a password was changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from common.connect import connect
from common.embedded import EmbeddedRedis
from common.errors import ConfigError, DeadlineExceeded
from common.keys import PoolKeys
from gateway import AsyncClient, Client
from tests.support.running import workers
from tests.support.waiting import wait_until

MODELS = """
import os
import time
from pathlib import Path
from inference_worker import model


@model(inputs={"gate": "BYTES[]"}, outputs={"pid": "INT64[]"}, rows=1, sample={"gate": ""})
def waits(gate):
    if gate[0]:
        Path(gate[0] + ".entered").touch()
        while not Path(gate[0]).exists():
            time.sleep(0.01)
    return [os.getpid()]
"""


class Guarded:
    """A server with a user whose password changes."""

    def __init__(self, server: EmbeddedRedis, admin: redis.Redis) -> None:
        self.url = f"redis://user:old@{server.url.rpartition('@')[2]}"
        self.admin = admin
        self.set("on", ">old", "~*", "&*", "+@all")

    def set(self, *rules: str) -> None:
        self.admin.execute_command("ACL", "SETUSER", "user", *rules)

    def rotate(self, *rules: str) -> None:
        """And cut the connections that were let in before."""
        self.set(*rules)
        self.admin.execute_command("CLIENT", "KILL", "USER", "user")


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    with EmbeddedRedis(tcp=True) as server, closing(connect(server.url)) as admin:
        yield Guarded(server, admin)


def test_a_misspelt_password_is_a_configuration_error_at_once(guarded: Guarded) -> None:
    with (
        Client(guarded.url.replace("old", "misspelt"), pool="p", timeout_s=60) as client,
        pytest.raises(ConfigError, match=r"^Redis refuses the user, the password or a permission"),
    ):
        client.infer("echo", 1)


async def refused(url: str) -> None:
    async with AsyncClient(url, pool="p", timeout_s=60) as client:
        with pytest.raises(ConfigError, match=r"^Redis refuses the user, the password or a permission"):
            await client.infer("echo", 1)


def test_so_it_is_to_the_asyncio_client(guarded: Guarded) -> None:
    asyncio.run(refused(guarded.url.replace("old", "misspelt")))


def test_a_password_that_is_changed_is_told_in_one_line_and_in_the_end_to_the_caller(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(guarded.url, pool="p") as client, caplog.at_level(logging.INFO):
        handle = client.submit("echo", 1, timeout=3)
        wait_until(lambda: guarded.admin.xlen(PoolKeys("p").streams[1]) == 1, "it is sent")
        guarded.rotate("resetpass", ">new")

        with pytest.raises(DeadlineExceeded, match=r"lets nobody in \(invalid username-password pair"):
            handle.result()

    said = [record for record in caplog.records if "invalid username-password pair" in record.getMessage()]
    assert [(one.name, one.exc_info) for one in said] == [("gateway.exchange", None)]
    assert said[0].getMessage().startswith("requests wait until Redis lets us in again, or until their deadlines: ")


def test_a_result_that_redis_takes_from_nobody_is_kept_until_it_does_again(guarded: Guarded, tmp_path: Path) -> None:
    models, gate = tmp_path / "models.py", tmp_path / "gate"
    models.write_text(MODELS)
    with workers(guarded.url, "p", models), Client(guarded.url, pool="p", timeout_s=60) as client:
        before = int(client.infer("waits", "")["pid"])
        # Given a batch that runs while the password is changed
        handle = client.submit("waits", str(gate))
        wait_until(Path(f"{gate}.entered").exists, "the model runs")
        guarded.rotate("resetpass", ">new")
        gate.touch()
        # When the old password is good again
        guarded.rotate(">old")
        # Then the worker has lived through it, with its result
        assert int(handle.result()["pid"]) == before
        assert int(client.infer("waits", "")["pid"]) == before
