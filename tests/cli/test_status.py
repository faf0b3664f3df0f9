"""`status` where the broker is there and something is wrong with it."""

from __future__ import annotations

import os
import signal
import time

from common.connect import SOCKET_TIMEOUT_S, connect
from common.embedded import EmbeddedRedis
from tests.support.command import CommandLine


def test_a_broker_that_stands_still_is_told_apart_from_one_that_is_not_there(shell: CommandLine) -> None:
    with EmbeddedRedis() as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            done = shell.run("status", "--broker", server.url)
            took = time.monotonic() - began
        finally:
            os.kill(server.pid, signal.SIGCONT)

    assert done.code == 69
    assert "accepts connections and has not answered within 3 s" in done.error
    assert "inference-worker up" not in done.error
    assert took < SOCKET_TIMEOUT_S


def test_a_full_broker_is_told_before_its_pools(shell: CommandLine) -> None:
    with EmbeddedRedis() as server:
        client = connect(server.url)
        client.config_set("maxmemory", 100_000)

        done = shell.run("status", "--broker", server.url, "--interval", "1")

        client.config_set("maxmemory", 0)
        client.close()
    assert done.code == 0
    assert done.out.splitlines()[0].endswith(" of 0 MB: full, new requests are refused")
