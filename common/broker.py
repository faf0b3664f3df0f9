"""The operations on one pool, executed: one round trip each, with recovery from a Redis that forgot things."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from common import scripts
from common.connect import BLOCK_MS, broker_errors, error_kind, execute_together
from common.keys import GROUP, POOLS, PoolKeys
from common.scripts import INBOX_CHUNK, Answer, Call, Entry, Finish, Place, Submission, Taken

if TYPE_CHECKING:
    import redis


class Broker:
    """One pool on one Redis. Safe from many threads.

    Every method raises BrokerUnavailable where Redis does not answer; none retries by itself, since
    only its caller knows what the answer that was lost meant.
    """

    def __init__(self, client: redis.Redis, pool: str) -> None:
        self._redis = client
        self.keys = PoolKeys(pool)

    @property
    def pool(self) -> str:
        return self.keys.pool

    def submit(self, submissions: Sequence[Submission], inbox: str, lifetime_ms: int) -> list[Answer]:
        """Put requests into their streams, once each; one answer for each, in order."""
        raw = self._run(scripts.submit(self.keys, submissions, inbox, lifetime_ms))
        return scripts.submit_answers(self.pool, raw)

    def take(self, consumer: str, shares: tuple[int, int, int]) -> Taken:
        """Entries for `consumer`, without waiting: `shares` of high, normal and low."""
        return scripts.taken(self._run(scripts.take(self.keys, consumer, shares)))

    def complete(self, finishes: Sequence[Finish]) -> int:
        """Finish a micro-batch; the number of entries that this call was the first to finish."""
        return int(self._run(scripts.complete(self.keys, finishes)))

    def renew(self, lease_ms: int, workers: Iterable[tuple[str, bytes]]) -> int:
        """Prolong leases of (consumer, description) pairs; Redis's time in ms."""
        return int(self._run(scripts.renew(self.keys, lease_ms, workers)))

    def reclaim(self, consumer: str, most: int) -> tuple[int, list[Entry]]:
        """(Redis's time in ms, entries that consumers without a lease left to `consumer`)"""
        return scripts.reclaimed(self._run(scripts.reclaim(self.keys, consumer, most)))

    def release(self, consumer: str, places: Iterable[Place]) -> int:
        """Hand entries back; the number that `consumer` still held."""
        return int(self._run(scripts.release(self.keys, consumer, places)))

    def cancel(self, inbox: str, request_ids: Iterable[str]) -> int:
        """`inbox` waits no longer; the number of entries that nobody waits for now."""
        return int(self._run(scripts.cancel(self.keys, inbox, request_ids)))

    def held(self, consumer: str) -> list[Place]:
        """The entries pending for `consumer`, the oldest 1,000 of each stream."""
        return [(stream, id) for stream in range(len(self.keys.streams)) for id in self._pending(stream, consumer)]

    def create_groups(self) -> None:
        """The pool's streams with their consumer group, from the first entry on. Harmless where they exist."""
        for stream in self.keys.streams:
            with broker_errors():
                try:
                    self._redis.execute_command("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM")
                except Exception as error:
                    if error_kind(error) != "BUSYGROUP":
                        raise
        self._execute("SADD", POOLS, self.pool)

    def publish_models(self, models: dict[str, bytes]) -> None:
        """`name:version` -> metadata, for clients. They stay as long as leases are renewed."""
        for name, metadata in models.items():
            self._execute("HSET", self.keys.models, name, metadata)
        self._execute("PEXPIRE", self.keys.models, scripts.PRESENCE_MS)

    def retire_models(self, names: Iterable[str]) -> None:
        """Clients hear of these no more."""
        self._execute("HDEL", self.keys.models, *names)

    def descriptions(self) -> list[bytes]:
        """What supervisors say of the pool's workers (msgpack maps); empty for one that has ended."""
        found: list[bytes] = self._execute("HVALS", self.keys.workers)
        return found

    def models(self) -> dict[str, bytes]:
        return scripts.models_read(self._execute("HGETALL", self.keys.models))

    def set_limits(self, backlog: int | None = None, tenant: int | None = None) -> None:
        """The pool's bounds on unfinished requests, for all clients from now on."""
        for name, bound in (("backlog", backlog), ("tenant", tenant)):
            if bound is not None:
                self._execute("HSET", self.keys.limits, name, bound)

    def wake(self, inbox: str) -> None:
        """An empty value into `inbox`: who waits for it there looks up again what to read."""
        with broker_errors(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.execute_command("RPUSH", inbox, b"")
            pipeline.execute_command("PEXPIRE", inbox, scripts.INBOX_LIFETIME_MS)
            pipeline.execute()

    def store_payload(self, request_id: str, data: bytes, lifetime_ms: int) -> str:
        """A large request under a key of its own; the key."""
        key = self.keys.payload(request_id)
        self._execute("SET", key, data, "PX", lifetime_ms)
        return key

    def fetch(self, key: str) -> bytes | None:
        """A stored reply or payload; None where it has expired."""
        value: bytes | None = self._execute("GET", key)
        return value

    def _pending(self, stream: int, consumer: str) -> list[bytes]:
        with broker_errors():
            try:
                pending: list[Any] = self._redis.xpending_range(
                    self.keys.streams[stream], GROUP, "-", "+", 1000, consumer
                )
            except Exception as error:
                if error_kind(error) != "NOGROUP":
                    raise
                return []
        return [one["message_id"] for one in pending]

    def _run(self, call: Call) -> Any:
        with broker_errors():
            try:
                return self._evaluate(call)
            except Exception as error:
                if error_kind(error) != "NOGROUP":
                    raise
            # Redis lost its data (FLUSHALL, a restart without persistence): start again on empty streams.
            self.create_groups()
            return self._evaluate(call)

    def _evaluate(self, call: Call) -> Any:
        script, keys, argv = call
        try:
            return self._redis.execute_command("EVALSHA", script.sha, len(keys), *keys, *argv)
        except Exception as error:
            if error_kind(error) != "NOSCRIPT":
                raise
        return self._redis.execute_command("EVAL", script.source, len(keys), *keys, *argv)

    def _execute(self, *command: Any) -> Any:
        with broker_errors():
            return self._redis.execute_command(*command)

    def __repr__(self) -> str:
        return f"Broker({self.pool!r})"


def read_entries(client: redis.Redis, keys: PoolKeys, consumer: str, count: int) -> list[Entry]:
    """Wait up to a second for new entries on any of the pool's streams.

    `client` must be used for nothing else at the time: the read blocks its connection. Entries of
    all three streams may come, `count` of each. Returns at once on NOGROUP: `take` mends that.
    """
    with broker_errors():
        try:
            raw = client.execute_command(
                "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, "BLOCK", BLOCK_MS,
                "STREAMS", *keys.streams, ">", ">", ">",
            )  # fmt: skip
        except Exception as error:
            if error_kind(error) != "NOGROUP":
                raise
            return []
    return scripts.entries_read(keys, raw)


def read_inboxes(client: redis.Redis, inboxes: Sequence[str], wait_s: float = BLOCK_MS / 1000) -> list[bytes]:
    """Wait up to `wait_s` (10 ms to 1 s) for replies in any of the inboxes; then take all that is there.

    `client` must be used for nothing else at the time. Empty values are wake-ups and come too.
    """
    # Redis runs what follows a blocking read as soon as that is over: one round trip for all.
    commands = [("BLPOP", *inboxes, wait_s), *(("LPOP", inbox, INBOX_CHUNK) for inbox in inboxes)]
    with broker_errors():
        first, *more = execute_together(client, commands)
    return scripts.inbox_values(first, more)
