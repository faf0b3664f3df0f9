"""The brokers under fire: one server, a master and its replica under Sentinel, a Cluster of three masters."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import RedisError

from common.connect import connect
from common.embedded import find_server, free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import redis

#: Another takes over from a server that is silent for so long.
TAKE_OVER_MS = 1500
FAILOVER_WITHIN_S = 30.0
SLOTS = 16384


class Server:
    """One redis-server on a loopback port, with an append-only file. Starts again on the same data."""

    def __init__(self, lines: Sequence[str], *, sentinel: bool = False, port: int | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="iw-chaos-redis-")
        self.port = port or free_port()
        self._mode = ["--sentinel"] if sentinel else []
        self._file = Path(self._folder.name) / "redis.conf"
        kept = [] if sentinel else ["appendonly yes", 'save ""']
        head = ["bind 127.0.0.1", "protected-mode no", f"port {self.port}", f"dir {self._folder.name}", *kept]
        self._file.write_text("\n".join([*head, *lines]) + "\n")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [find_server(), self._file, *self._mode], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.client = connect(f"redis://127.0.0.1:{self.port}")
        wait_until(self._answers, f"the server on port {self.port} answers")

    def role(self) -> str:
        """`master` or `slave`; empty for one that does not answer."""
        try:
            return str(self.client.execute_command("ROLE")[0].decode())
        except (RedisError, OSError):
            return ""

    def end(self, number: int) -> None:
        self.client.close()
        self.process.send_signal(number)
        self.process.wait()

    def remove(self) -> None:
        self.end(signal.SIGKILL)
        self._folder.cleanup()

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"redis-server on port {self.port} ended with {self.process.returncode}"
        try:
            return bool(self.client.ping())
        except (RedisError, OSError):
            return False


class Deployment(ABC):
    """Servers, and the URL by which clients find them."""

    url: str
    servers: list[Server]

    @abstractmethod
    def primary(self) -> Server:
        """The server that holds the pool now."""

    @abstractmethod
    def lose_primary(self, number: int) -> None:
        """End it by a signal. When this returns the pool is served again, and the server has been started again."""

    #: Whether `move` does something.
    can_move = False

    def move(self) -> None:
        """The pool goes to another server while all live."""
        raise NotImplementedError(f"{type(self).__name__} cannot move a pool")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.servers:
            server.remove()


class Single(Deployment):
    """It comes again on the data that it has written."""

    def __init__(self) -> None:
        self.servers = [Server(["appendfsync everysec"])]
        self.url = f"redis://127.0.0.1:{self.servers[0].port}"

    def primary(self) -> Server:
        return self.servers[0]

    def lose_primary(self, number: int) -> None:
        self.servers[0].end(number)
        self.servers[0].start()


class Sentinels(Deployment):
    """A master, a replica, and three Sentinels that make the one the other."""

    def __init__(self) -> None:
        master = Server([])
        replica = Server([f"replicaof 127.0.0.1 {master.port}"])
        self._data = [master, replica]
        wait_until(lambda: b"online" in _replicas(master.client), "the replica follows")
        rules = [
            f"sentinel monitor main 127.0.0.1 {master.port} 2",
            f"sentinel down-after-milliseconds main {TAKE_OVER_MS}",
            "sentinel failover-timeout main 3000",
        ]
        sentinels = [Server(rules, sentinel=True) for _ in range(3)]
        for sentinel in sentinels:
            wait_until(lambda one=sentinel: _peers(one) == 2, "the Sentinels know each other", 30)  # type: ignore[misc]
        self.servers = [*self._data, *sentinels]
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in sentinels)}/main"

    def primary(self) -> Server:
        return wait_until(self._master, "there is one master", FAILOVER_WITHIN_S)

    def lose_primary(self, number: int) -> None:
        old = self.primary()
        wait_until(lambda: b"online" in _replicas(old.client), "the replica follows", FAILOVER_WITHIN_S)
        old.end(number)
        [new] = [server for server in self._data if server is not old]
        wait_until(lambda: new.role() == "master", "the replica has become master", FAILOVER_WITHIN_S)
        old.start()

    def _master(self) -> Server | None:
        masters = [server for server in self._data if server.role() == "master"]
        return masters[0] if len(masters) == 1 else None


class Cluster(Deployment):
    """Three masters with a replica each. The pool can be moved to another master while it is in use."""

    can_move = True

    def __init__(self, key: str) -> None:
        """`key` is one of the pool's: its slot is the one that moves."""
        lines = ["cluster-enabled yes", f"cluster-node-timeout {TAKE_OVER_MS}", "cluster-replica-validity-factor 0"]
        self.servers = [Server(lines, port=_cluster_port()) for _ in range(6)]
        self._meet()
        self._slot = int(self.servers[0].client.execute_command("CLUSTER KEYSLOT", key))
        self.url = f"redis+cluster://{','.join(f'127.0.0.1:{one.port}' for one in self.servers[:3])}"

    def primary(self) -> Server:
        return wait_until(self._owner, "some master holds the slot", FAILOVER_WITHIN_S)

    def lose_primary(self, number: int) -> None:
        old = self.primary()
        wait_until(lambda: b"online" in _replicas(old.client), "its replica follows", FAILOVER_WITHIN_S)
        old.end(number)
        wait_until(lambda: self._owner(without=old), "a replica has taken over", FAILOVER_WITHIN_S)
        old.start()

    def move(self) -> None:
        """The slot and its keys to the next master, as resharding does it."""
        source = self.primary()
        masters = [server for server in self.servers if server.role() == "master"]
        target = masters[(masters.index(source) + 1) % len(masters)]
        slot, source_id, target_id = self._slot, _node_id(source), _node_id(target)
        target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        while keys := source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 50):
            source.client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "REPLACE", "KEYS", *keys)
        for server in (target, source, *masters):
            server.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def _owner(self, without: Server | None = None) -> Server | None:
        for server in self.servers:
            if server is not without and server.role() == "master" and self._holds(server):
                return server
        return None

    def _holds(self, server: Server) -> bool:
        with suppress(RedisError, OSError):
            for first, last, owner, *_ in server.client.execute_command("CLUSTER", "SLOTS"):
                if first <= self._slot <= last:
                    return bool(owner[1] == server.port)
        return False

    def _meet(self) -> None:
        first, masters, replicas = self.servers[0], self.servers[:3], self.servers[3:]
        for server in self.servers[1:]:
            server.client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port)
        for number, server in enumerate(masters):
            server.client.execute_command("CLUSTER", "ADDSLOTS", *range(SLOTS * number // 3, SLOTS * (number + 1) // 3))
        wait_until(lambda: all(_known(server) == 6 for server in self.servers), "all nodes know each other", 30)
        for master, replica in zip(masters, replicas, strict=True):
            replica.client.execute_command("CLUSTER", "REPLICATE", _node_id(master))
        wait_until(lambda: all(_is_up(server) for server in self.servers), "the cluster is up", 30)
        wait_until(lambda: all(b"online" in _replicas(master.client) for master in masters), "replicas follow", 30)


def _replicas(client: redis.Redis) -> bytes:
    with suppress(RedisError, OSError):
        info: dict[str, Any] = client.info("replication")
        return str(info).encode()
    return b""


def _peers(sentinel: Server) -> int:
    return len(sentinel.client.execute_command("SENTINEL", "SENTINELS", "main"))


def _known(server: Server) -> int:
    return len(_text(server.client.execute_command("CLUSTER", "NODES")).splitlines())


def _is_up(server: Server) -> bool:
    return "cluster_state:ok" in _text(server.client.execute_command("CLUSTER", "INFO"))


def _node_id(server: Server) -> str:
    return _text(server.client.execute_command("CLUSTER", "MYID"))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _cluster_port() -> int:
    """One whose bus port, 10,000 above it, exists and is not taken by an ordinary one."""
    while (port := free_port()) > 55_000:
        pass
    return port
