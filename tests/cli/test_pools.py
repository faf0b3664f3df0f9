"""`pools forget`: a mistyped pool goes out of `status`."""

from __future__ import annotations

import json

from common.embedded import EmbeddedRedis
from tests.support.command import CommandLine


def test_a_mistyped_pool_is_forgotten(shell: CommandLine) -> None:
    with EmbeddedRedis() as server:
        broker = {"INFERENCE_WORKER_BROKER": server.url}
        (shell.folder / "m.py").write_text("def f(x):\n    return x\n")
        # Given a worker that found nothing to serve
        assert shell.run("worker", "m.py", "--pool", "zzz", **broker).code == 78
        [pool] = json.loads(shell.run("status", "--interval", "1", "--json", **broker).out)["pools"]
        assert (pool["name"], pool["workers"]) == ("zzz", [])

        done = shell.run("pools", "forget", "zzz", **broker)
        again = shell.run("pools", "forget", "zzz", **broker)

    assert (done.code, done.out) == (0, "pool 'zzz' is forgotten, with 0 requests and 0 dead letters\n")
    assert again.code == 78
    assert "no pool 'zzz' was ever started on this broker; there is none" in again.error
