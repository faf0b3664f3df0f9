"""The operations on one pool, executed: one round trip each, with recovery from a Redis that forgot things."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from common import scripts
from common.connect import BLOCK_MS, broker_errors, error_kind, execute_together
from common.keys import GROUP, POOLS, PRIORITIES, PoolKeys
from common.scripts import (
    INBOX_CHUNK,
    Answer,
    Answers,
    Call,
    Entry,
    Finish,
    Forgotten,
    Place,
    Published,
    Reclaimed,
    Submission,
    Taken,
)

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

    def submit(self, submissions: Sequence[Submission], inbox: str, lifetime_ms: int) -> Answers:
        """Put requests into their streams, once each; one answer for each, in order."""
        raw = self._run(scripts.submit(self.keys, submissions, inbox, lifetime_ms))
        answers = scripts.submit_answers(self.pool, raw)
        for index in scripts.notes(answers):
            answers[index] = self._stored(submissions[index], answers[index], inbox, lifetime_ms)
        return answers

    def take(self, consumer: str, shares: tuple[int, int, int], bulk: bool = True) -> Taken:
        """Entries for `consumer`, without waiting: `shares` of high, normal and low; `bulk` lanes, too."""
        return scripts.taken(self._run(scripts.take(self.keys, consumer, shares, bulk)))

    def complete(self, finishes: Sequence[Finish]) -> int:
        """Finish a micro-batch; the number of entries that this call was the first to finish."""
        return int(self._run(scripts.complete(self.keys, finishes)))

    def renew(self, lease_ms: int, workers: Iterable[tuple[str, bytes]]) -> int:
        """Prolong leases of (consumer, description) pairs; Redis's time in ms."""
        return int(self._run(scripts.renew(self.keys, lease_ms, workers)))

    def withdraw(self, consumers: Sequence[str]) -> None:
        """Forget consumers that never took anything: nobody has to take over from them."""
        self._execute("ZREM", self.keys.leases, *consumers)
        self._execute("HDEL", self.keys.workers, *consumers)

    def has_lease(self, consumer: str) -> bool:
        """Whether Redis knows a lease of that consumer, live or lapsed."""
        return self._execute("ZSCORE", self.keys.leases, consumer) is not None

    def reclaim(self, consumer: str, most: int) -> Reclaimed:
        """For `consumer`, entries that consumers without a lease left."""
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
        """The pool's streams with their consumer group, from the first entry on. Harmless where they exist.

        What clients put there before the first worker had a TTL until now. Group and permanence come in one
        transaction: no stream expires in between.
        """
        with broker_errors(), self._redis.pipeline(transaction=True) as pipeline:
            for stream in self.keys.streams:
                pipeline.execute_command("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM")
            for key in (*self.keys.streams, self.keys.tenants, self.keys.lanes):
                pipeline.execute_command("PERSIST", key)
            for answer in pipeline.execute(raise_on_error=False):
                if isinstance(answer, Exception) and error_kind(answer) != "BUSYGROUP":
                    raise answer
        self._execute("SADD", POOLS, self.pool)

    def publish_models(self, models: dict[str, bytes]) -> None:
        """`name:version` -> metadata, for clients. They stay as long as leases are renewed."""
        if not models:
            return
        fields = [one for pair in models.items() for one in pair]
        self._change_models(("HSET", self.keys.models, *fields), ("PEXPIRE", self.keys.models, scripts.PRESENCE_MS))

    def retire_models(self, names: Iterable[str]) -> None:
        """Clients hear of these no more."""
        self._change_models(("HDEL", self.keys.models, *names))

    def _change_models(self, *commands: tuple[Any, ...]) -> None:
        """In one step with their generation: who finds the old one there has seen the old models."""
        with broker_errors(), self._redis.pipeline(transaction=True) as pipeline:
            for command in (*commands, ("HINCRBY", self.keys.limits, scripts.GENERATION, 1)):
                pipeline.execute_command(*command)
            pipeline.execute()

    def descriptions(self) -> list[bytes]:
        """What supervisors say of the pool's workers (msgpack maps); empty for one that has ended."""
        found: list[bytes] = self._execute("HVALS", self.keys.workers)
        return found

    def models(self) -> dict[str, bytes]:
        return scripts.models_read(self._execute("HGETALL", self.keys.models))

    def published(self) -> Published:
        """The models, and how requests are led to their versions."""
        with broker_errors():
            return scripts.published_read(execute_together(self._redis, scripts.published(self.keys)))

    def traffic(self) -> dict[str, bytes]:
        """Model -> plan (common/traffic.py), as operators have set it."""
        return scripts.models_read(self._execute("HGETALL", self.keys.traffic))

    def steer(self, model: str, before: bytes, after: bytes) -> bool:
        """Replace a model's plan; False where it is no longer the one that was read."""
        return bool(self._run(scripts.steer(self.keys, model, before, after)))

    def unloaded(self) -> dict[str, bytes]:
        """`name:version` of what operators have unloaded -> when, in ms of Redis's clock."""
        return scripts.models_read(self._execute("HGETALL", self.keys.unloaded))

    def hold_back(self, names: Iterable[str], when_ms: int | bytes) -> None:
        """Whoever starts from now on does not serve these; `when_ms` is told to operators."""
        for name in names:
            self._execute("HSET", self.keys.unloaded, name, when_ms)

    def forget(self, force: bool) -> Forgotten:
        """Remove the pool where no worker lives in it and, without `force`, where it holds no work."""
        found = scripts.forgotten(self._run(scripts.forget(self.keys, force)))
        if found.done:
            self._execute("SREM", POOLS, self.pool)
        return found

    def hold_no_more(self, names: Iterable[str]) -> None:
        self._execute("HDEL", self.keys.unloaded, *names)

    def limits(self) -> dict[str, bytes]:
        """The pool's limits by field (common/limits.py), as operators have set them."""
        return scripts.models_read(self._execute("HGETALL", self.keys.limits))

    def set_limits(self, backlog: int | None = None, tenant: int | None = None) -> None:
        """The pool's bounds on unfinished requests, for all clients from now on."""
        bounds = {"backlog": backlog, "tenant": tenant}
        self.change_limits({name: bound for name, bound in bounds.items() if bound is not None})

    def change_limits(self, fields: Mapping[str, str | float]) -> None:
        """Set these fields, for all clients from now on."""
        for name, value in fields.items():
            self._execute("HSET", self.keys.limits, name, value)

    def clear_limits(self, fields: Iterable[str]) -> None:
        self._execute("HDEL", self.keys.limits, *fields)

    def wake(self, inbox: str) -> None:
        """An empty value into `inbox`: who waits for it there looks up again what to read."""
        self.tell(inbox, b"")

    def tell(self, inbox: str, message: bytes) -> None:
        """A message into `inbox`, for who waits there."""
        with broker_errors(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.execute_command("RPUSH", inbox, message)
            pipeline.execute_command("PEXPIRE", inbox, scripts.INBOX_LIFETIME_MS)
            pipeline.execute()

    def give_order(self, order: bytes) -> None:
        """To every supervisor of the pool that is there now."""
        with broker_errors(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.execute_command("XADD", self.keys.control, "MAXLEN", "~", scripts.MAX_ORDERS, "*", "d", order)
            pipeline.execute_command("PEXPIRE", self.keys.control, scripts.ORDER_LIFETIME_MS)
            pipeline.execute()

    def last_order(self) -> bytes:
        """The id of the order that was given last, "0-0" where there is none: who comes now obeys those after it."""
        found = self._execute("XREVRANGE", self.keys.control, "+", "-", "COUNT", 1)
        return found[0][0] if found else b"0-0"

    def orders_after(self, last: bytes) -> list[tuple[bytes, bytes]]:
        """(id, order) of those given since."""
        found = self._execute("XRANGE", self.keys.control, b"(" + last, "+")
        return [(id, fields.get(b"d", b"")) for id, fields in found]

    def store_payload(self, request_id: str, data: bytes, lifetime_ms: int) -> str:
        """A large request under a key of its own; the key."""
        key = self.keys.payload(request_id)
        self._execute("SET", key, data, "PX", lifetime_ms)
        return key

    def drop_payloads(self, request_ids: Iterable[str]) -> None:
        """Large requests that nobody will come for."""
        self._execute("DEL", *map(self.keys.payload, request_ids))

    def fetch(self, key: str) -> bytes | None:
        """A stored reply or payload; None where it has expired."""
        value: bytes | None = self._execute("GET", key)
        return value

    def _stored(self, submission: Submission, note: Answer, inbox: str, lifetime_ms: int) -> Answer:
        """A long reply, of which submit gave the key. One that expired in between is computed again."""
        reply: bytes | None = self._execute("GET", note)
        return reply if reply is not None else self.submit([submission], inbox, lifetime_ms)[0]

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


def read_entries(
    client: redis.Redis, keys: PoolKeys, consumer: str, count: int, wait_s: float = BLOCK_MS / 1000, bulk: bool = True
) -> list[Entry]:
    """Wait up to `wait_s` (1 ms to 1 s) for new entries on any of the pool's streams; not `bulk`: on the ordinary ones.

    `client` must be used for nothing else at the time: the read blocks its connection. Entries of
    all streams may come, `count` of each. Returns at once on NOGROUP: `take` mends that.
    """
    streams = keys.streams if bulk else keys.streams[: len(PRIORITIES)]
    with broker_errors():
        try:
            raw = client.execute_command(
                "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, "BLOCK", int(wait_s * 1000),
                "STREAMS", *streams, *(">",) * len(streams),
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
