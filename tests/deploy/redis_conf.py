"""The servers of deploy/redis/*.conf, started from the files themselves."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from common.connect import connect
from common.embedded import find_server, free_port
from tests.deploy.manifests import DEPLOY
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import redis

FOLDER = DEPLOY / "redis"


class Started:
    """A server on a loopback port, with a connection to it."""

    def __init__(self, port: int, client: redis.Redis) -> None:
        self.port = port
        self.client = client

    def config(self, name: str) -> str:
        [value] = self.client.config_get(name).values()
        return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def started(name: str, *more: str, cut: str = "\0", sentinel: bool = False, user: str = "") -> Iterator[Started]:
    """deploy/redis/`name` with an address and a folder of its own.

    Lines that begin with `cut` are left out, `more` are added. `user` is `name:password` where nobody else is let in.
    """
    # A Cluster's servers take the port 10,000 above theirs as well.
    while (port := free_port()) > 55_000:
        pass
    with tempfile.TemporaryDirectory(prefix="iw-conf-") as folder:
        # A copy: Redis rewrites the file of a Sentinel, and of a server under one.
        file = Path(folder) / name
        lines = [line for line in (FOLDER / name).read_text("utf-8").splitlines() if not line.startswith(cut)]
        lines += ["bind 127.0.0.1", f"port {port}", f"dir {folder}", *more]
        file.write_text("\n".join(lines) + "\n")
        log = Path(folder) / "log"
        mode = ["--sentinel"] if sentinel else []
        with log.open("wb") as output:
            process = subprocess.Popen([find_server(), file, *mode], stdout=output, stderr=subprocess.STDOUT)
        try:
            with closing(connect(f"redis://{user}{'@' if user else ''}127.0.0.1:{port}")) as client:
                wait_until(lambda: _answers(process, client, log), f"the server of {name} answers")
                yield Started(port, client)
        finally:
            process.kill()
            process.wait()


def _answers(process: subprocess.Popen[bytes], client: redis.Redis, log: Path) -> bool:
    assert process.poll() is None, f"it ended with {process.returncode}: {log.read_text()}"
    try:
        return bool(client.ping())
    except (RedisError, OSError):
        return False
