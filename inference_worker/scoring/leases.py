"""Who scores which shard. Alone it is a set in this process; with others, leases in Redis under the job's name.

A lease lapses with its holder. One that lapsed too early costs work done twice and nothing else: whoever finishes
second writes the same bytes over the first one's.
"""

from __future__ import annotations

from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from common.connect import broker_errors
from common.errors import BrokerUnavailable
from common.keys import ScoreKeys

if TYPE_CHECKING:
    import redis

LEASE_S = 15.0

#: Deletes a lease where it is still ours.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
#: Prolongs a lease where it is still ours, and takes one that has lapsed.
_RENEW = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


class Leases(Protocol):
    """The shards in this process's hands. `shared`: other processes may hold others."""

    shared: bool

    def claim(self, name: str) -> bool:
        """Whether the shard is ours from now on; False where somebody holds it, we ourselves included."""

    def release(self, name: str) -> None: ...

    def close(self) -> None: ...


class OwnLeases:
    """Of a job that no other process works at."""

    shared = False

    def __init__(self) -> None:
        self._held: set[str] = set()

    def claim(self, name: str) -> bool:
        if name in self._held:
            return False
        self._held.add(name)
        return True

    def release(self, name: str) -> None:
        self._held.discard(name)

    def close(self) -> None:
        self._held.clear()


class SharedLeases:
    """Leases in Redis, renewed by a thread as long as this process lives."""

    shared = True

    def __init__(self, client: redis.Redis, keys: ScoreKeys, lease_s: float = LEASE_S) -> None:
        self._redis, self._keys = client, keys
        self._lease_ms = int(lease_s * 1000)
        self._token = uuid4().hex
        self._held: set[str] = set()
        self._lock = Lock()
        self._ended = Event()
        self._thread = Thread(target=self._renew, name="score-leases", daemon=True)
        self._thread.start()

    def claim(self, name: str) -> bool:
        with self._lock:
            if name in self._held:
                return False
        while not self._ended.is_set():
            try:
                with broker_errors():
                    mine = self._redis.set(self._keys.lease(name), self._token, nx=True, px=self._lease_ms)
                break
            except BrokerUnavailable:
                self._ended.wait(1.0)
        else:
            return False
        if mine:
            with self._lock:
                self._held.add(name)
        return bool(mine)

    def release(self, name: str) -> None:
        with self._lock:
            self._held.discard(name)
        self._call(_RELEASE, name)

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        for name in list(self._held):
            self.release(name)

    def _renew(self) -> None:
        while not self._ended.wait(self._lease_ms / 3000):
            with self._lock:
                held = list(self._held)
            for name in held:
                self._call(_RENEW, name, self._lease_ms)

    def _call(self, script: str, name: str, *arguments: Any) -> None:
        # One that is not renewed lapses: the shard is done twice, and that is all.
        try:
            with broker_errors():
                self._redis.eval(script, 1, self._keys.lease(name), self._token, *arguments)
        except BrokerUnavailable:
            return
