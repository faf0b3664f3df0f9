"""One request's life, as far as Redis still knows it: its entry, who holds it, its reply, its dead letter.

Reads only, and a bounded number of keys: the request's own, and where these are gone, or a raw producer never made
them, the ends of the pool's streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from common.connect import broker_errors, error_kind
from common.keys import GROUP, PRIORITIES, RELEASED, PoolKeys, is_bulk, priority_of
from common.names import check_id
from common.protocol import Timings, error_of, timings_of
from common.scripts import time_read
from common.tracecontext import read_context
from common.wire import peek
from gateway.admin.pools import Admin, WorkerStatus

if TYPE_CHECKING:
    import redis

    from common.errors import InferenceError

#: Of each stream so many entries at each end are looked through for a request without waiters of its own.
ENDS = 100
#: And so many of the newest dead letters.
LETTERS = 200
_PAGE = 20
#: Of a stored reply, or of a request under a key of its own, so many bytes are read: what matters comes first.
_HEAD_BYTES = 65_536
_REQUEST_FIELDS = ("id", "model", "version", "tenant")
#: Others of a request or a reply, which are maps of a few entries, or none.
_SMALL_FIELDS = frozenset(("timeout_ms", "trace", "model", "version", "timings", "error"))
_SMALL = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """The request, as its entry or its dead letter holds it. `size` in bytes, None where its payload has expired."""

    id: str
    model: str
    version: str
    tenant: str
    timeout_ms: int | None
    trace: str
    size: int | None


@dataclass(frozen=True, slots=True)
class InStream:
    """Its entry: unfinished. `stream` is its number; `added_ms` Redis's clock; `cancelled`: nobody waits for it."""

    stream: int
    entry: str
    priority: str
    bulk: bool
    added_ms: int
    cancelled: bool
    asked: Asked


@dataclass(frozen=True, slots=True)
class Held:
    """Who has taken it: `since_ms` ago for the last time. `deliveries` counts this one, too.

    `worker` is None for one whose lease Redis does not know; `handed_back`: a drained worker's, for anybody.
    """

    consumer: str
    since_ms: int
    deliveries: int
    handed_back: bool
    worker: WorkerStatus | None


@dataclass(frozen=True, slots=True)
class Answered:
    """Its stored reply of `size` bytes, kept for another `left_ms` (None: for ever, which is none of ours)."""

    model: str
    version: str
    error: InferenceError | None
    timings: Timings
    size: int
    left_ms: int | None


@dataclass(frozen=True, slots=True)
class Died:
    """Its dead letter."""

    letter: str
    died_ms: int
    reason: str
    deliveries: int
    asked: Asked


@dataclass(frozen=True, slots=True)
class Life:
    """What one pool knows of a request at `now_ms` of Redis's clock; `waiting` counts the clients' inboxes."""

    pool: str
    id: str
    now_ms: int
    waiting: int
    entry: InStream | None
    held: Held | None
    reply: Answered | None
    died: Died | None


class Lives:
    """Looks through all pools of a broker, or one. Raises BrokerUnavailable, InvalidRequest for what is no id."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._admin = Admin(client)

    def find(self, wanted: str, pool: str | None = None) -> list[Life]:
        """By a request's id, or the 32 digits of its trace; one life for each pool that knows it."""
        check_id(wanted)
        pools = [pool] if pool is not None else self._admin.pools()
        return [life for name in pools if (life := self._life(PoolKeys(name), wanted)) is not None]

    def _life(self, keys: PoolKeys, wanted: str) -> Life | None:
        now_ms = time_read(self._run("TIME"))
        waiters = (self._run("GET", keys.waiters(wanted)) or b"").decode(errors="replace").split(" ")
        entry = self._entry(keys, waiters[0], wanted)
        died = None if entry else self._died(keys, wanted)
        id = entry.asked.id if entry else died.asked.id if died else wanted
        reply = self._reply(keys, id)
        if entry is None and died is None and reply is None:
            return None
        held = self._held(keys, entry) if entry else None
        return Life(keys.pool, id, now_ms, len([one for one in waiters[1:] if one]), entry, held, reply, died)

    # The entry

    def _entry(self, keys: PoolKeys, place: str, wanted: str) -> InStream | None:
        number, _, id = place.partition(":")
        if number.isdecimal() and 1 <= int(number) <= len(keys.streams):
            stream = int(number) - 1
            for found, fields in self._range("XRANGE", keys.streams[stream], id, id, 1):
                return self._in_stream(keys, stream, found, self._asked(keys, fields))
            return None
        for stream, found, fields in self._ends(keys):
            asked = self._asked(keys, fields)
            if wanted in (asked.id, asked.trace):
                return self._in_stream(keys, stream, found, asked)
        return None

    def _ends(self, keys: PoolKeys) -> Iterator[tuple[int, bytes, Mapping[bytes, bytes]]]:
        for number, stream in enumerate(keys.streams):
            for found, fields in (*self._pages("XRANGE", stream, ENDS), *self._pages("XREVRANGE", stream, ENDS)):
                yield number, found, fields

    def _in_stream(self, keys: PoolKeys, stream: int, id: bytes, asked: Asked) -> InStream:
        cancelled = bool(self._run("SISMEMBER", keys.cancelled, f"{stream + 1}:{id.decode()}"))
        priority = PRIORITIES[priority_of(stream)]
        return InStream(stream, id.decode(), priority, is_bulk(stream), _ms(id), cancelled, asked)

    def _asked(self, keys: PoolKeys, fields: Mapping[bytes, bytes]) -> Asked:
        data, size = self._payload(keys, fields)
        found = peek(data, _REQUEST_FIELDS)
        more = _more(data)
        context = read_context(trace) if isinstance(trace := more.get("trace"), dict) else None
        timeout_ms = more.get("timeout_ms")
        return Asked(
            found.get("id", ""),
            found.get("model", ""),
            found.get("version", ""),
            found.get("tenant", ""),
            timeout_ms if isinstance(timeout_ms, int) else None,
            context.trace_id if context else "",
            size,
        )

    def _payload(self, keys: PoolKeys, fields: Mapping[bytes, bytes]) -> tuple[bytes, int | None]:
        reference = fields.get(b"r")
        if reference is None:
            data = fields.get(b"d", b"")
            return data, len(data)
        key = reference.decode(errors="replace")
        if keys.id_of_payload(key) is None:
            return b"", None
        size = int(self._run("STRLEN", key))
        return (self._run("GETRANGE", key, 0, _HEAD_BYTES - 1), size) if size else (b"", None)

    # Who holds it

    def _held(self, keys: PoolKeys, entry: InStream) -> Held | None:
        stream = keys.streams[entry.stream]
        try:
            with broker_errors():
                pending: Any = self._redis.xpending_range(stream, GROUP, entry.entry, entry.entry, 1)
        except Exception as error:
            if error_kind(error) != "NOGROUP":
                raise
            return None
        if not pending:
            return None
        consumer = pending[0]["consumer"].decode(errors="replace")
        [pool] = self._admin.snapshot([keys.pool]).pools
        workers = {one.name: one for one in pool.workers}
        return Held(
            consumer,
            int(pending[0]["time_since_delivered"]),
            int(pending[0]["times_delivered"]),
            consumer == RELEASED,
            workers.get(consumer),
        )

    # Its end

    def _reply(self, keys: PoolKeys, id: str) -> Answered | None:
        key = keys.reply(id)
        size = int(self._run("STRLEN", key))
        if not size:
            return None
        message = _more(self._run("GETRANGE", key, 0, _HEAD_BYTES - 1))
        left_ms = int(self._run("PTTL", key))
        error = message.get("error")
        timings = message.get("timings")
        return Answered(
            str(message.get("model", "")),
            str(message.get("version") or ""),
            error_of(error) if isinstance(error, dict) and {"code", "message"} <= error.keys() else None,
            timings_of(timings if isinstance(timings, dict) else {}),
            size,
            left_ms if left_ms >= 0 else None,
        )

    def _died(self, keys: PoolKeys, wanted: str) -> Died | None:
        for id, fields in self._pages("XREVRANGE", keys.dead, LETTERS):
            asked = self._asked(keys, fields)
            if wanted in (asked.id, asked.trace):
                reason = fields.get(b"reason", b"").decode(errors="replace")
                return Died(id.decode(), _ms(id), reason, int(fields.get(b"deliveries", 0)), asked)
        return None

    # Redis

    def _pages(self, command: str, stream: str, most: int) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
        """Up to `most` entries, a few in each call: each may hold a quarter of a megabyte."""
        first, last = ("-", "+") if command == "XRANGE" else ("+", "-")
        for _ in range(0, most, _PAGE):
            page = self._range(command, stream, first, last, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            first = f"({page[-1][0].decode()}"

    def _range(
        self, command: str, stream: str, first: str, last: str, count: int
    ) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        return list(self._run(command, stream, first, last, "COUNT", count))

    def _run(self, *command: Any) -> Any:
        with broker_errors():
            return self._redis.execute_command(*command)


def _more(data: bytes) -> dict[str, Any]:
    """Of a map that may be cut off, or hostile, what it says under these names before the cut: no list is built."""
    unpacker = msgpack.Unpacker(max_buffer_size=_HEAD_BYTES, max_array_len=0, max_map_len=_SMALL, max_ext_len=0)
    found: dict[str, Any] = {}
    with suppress(msgpack.UnpackException, ValueError):
        unpacker.feed(data[:_HEAD_BYTES])
        for _ in range(unpacker.read_map_header()):
            name = unpacker.unpack()
            if name in _SMALL_FIELDS:
                found[name] = unpacker.unpack()
            else:
                unpacker.skip()
    return found


def _ms(id: bytes) -> int:
    return int(id.partition(b"-")[0])
