"""The operations as values: which script, which keys and arguments, and what the reply means. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import Overloaded
from common.keys import GROUP, RELEASED, PoolKeys

#: More in one call gains nothing (measured: 256 is as fast as 64) and blocks Redis for longer.
MAX_BATCH = 256
#: A call with more than so many bytes blocks Redis for longer, too.
MAX_BATCH_BYTES = 4 * 1024 * 1024
#: Where the operator has set no bound in the pool's `limits`.
DEFAULT_BACKLOG = 100_000
DEFAULT_TENANT = 50_000
#: With so many unfinished requests, times its weight, a tenant goes on in a bulk lane.
DEFAULT_LIGHT = 32
#: The field of `limits` that workers raise with each change of their models: submit reads that hash anyway.
GENERATION = "generation"
INBOX_LIFETIME_MS = 60_000
CANCEL_MARK_MS = 3_600_000
#: Values that one read takes from an inbox: at most 64 MiB, as none is longer than PUSH_WHOLE_UP_TO.
INBOX_CHUNK = 1000
#: A longer reply is not pushed to each inbox, nor answered by submit: both give the reply key instead.
PUSH_WHOLE_UP_TO = 65_536
#: Such a key begins so, and no msgpack map does.
NOTE = b"iw:"
MAX_DEAD_LETTERS = 100_000
#: Workers and models are forgotten so long after the last supervisor renewed.
PRESENCE_MS = 60_000
#: Of an operator's orders to a pool about so many are kept, and the stream so long after the last one.
MAX_ORDERS = 100
ORDER_LIFETIME_MS = 3_600_000
#: An ended lease is remembered so long: more than a blocking read (connect.BLOCK_MS) on a dying connection.
ENDED_LEASE_MS = 2_000


#: Beside the tenants' counts: bytes of unfinished requests. No tenant's name has a colon.
BYTES = b":bytes"


class Script:
    """A Lua file and the SHA-1 by which Redis knows it."""

    __slots__ = ("name", "sha", "source")

    def __init__(self, name: str) -> None:
        self.name = name
        # importlib.resources would import zipfile and tempfile: a tenth of the client's import time.
        self.source = (Path(__file__).parent / "lua" / f"{name}.lua").read_text("utf-8")
        self.sha = sha1(self.source.encode()).hexdigest()

    def __repr__(self) -> str:
        return f"Script({self.name!r})"


SUBMIT = Script("submit")
TAKE = Script("take")
COMPLETE = Script("complete")
RENEW = Script("renew")
RECLAIM = Script("reclaim")
RELEASE = Script("release")
CANCEL = Script("cancel")
STEER = Script("steer")
FORGET = Script("forget")
SCRIPTS = (SUBMIT, TAKE, COMPLETE, RENEW, RECLAIM, RELEASE, CANCEL, STEER, FORGET)

Argument = str | bytes | int
#: Where an entry is: its stream's number and its id, which is unique within that stream only.
Place = tuple[int, bytes]


class Call(NamedTuple):
    """One script call, ready to be sent."""

    script: Script
    keys: Sequence[str]
    argv: Sequence[Argument]


class Submission(NamedTuple):
    """A request on its way into a stream. `field` is `d` (the request) or `r` (the key that holds it, in `size` bytes).

    `stream` is its priority's number; submit chooses the lane.
    """

    request_id: str
    stream: int
    tenant: str
    field: str
    value: bytes | str
    size: int = 0


class Admitted(Enum):
    """A request's way into the pool."""

    QUEUED = 0
    JOINED = 1


#: What submit says of one request: it waits now, or its reply is there, or it is refused.
Answer = Admitted | bytes | Overloaded


class Entry(NamedTuple):
    """A stream entry in a worker's hands. `deliveries` counts those before this one: crashes, in effect.

    `counted`: what submit counted it for, its tenant and where there is a bound on bytes these; empty for most.
    """

    stream: int
    id: bytes
    payload: bytes | None
    reference: bytes | None
    counted: bytes
    deliveries: int

    @property
    def place(self) -> Place:
        return self.stream, self.id

    @property
    def added_ms(self) -> int:
        """When it was added, by Redis's clock."""
        return int(self.id[: self.id.index(b"-")])


@dataclass(frozen=True, slots=True)
class Taken:
    """What `take` hands out.

    `lapsed`: some worker's lease has run out, so `reclaim` has work to do. `cancelled`: of all entries
    that this worker holds, the new ones included, those that nobody waits for any more. `workers`: those whose lease
    is live, this one included. `left`: entries that nobody has taken yet.
    """

    now_ms: int
    live: bool
    lapsed: bool
    entries: list[Entry]
    cancelled: frozenset[Place]
    workers: int
    left: int


class Reclaimed(NamedTuple):
    """What `reclaim` hands over; `dead`: the workers that it is from, and how many entries each held until now."""

    now_ms: int
    entries: list[Entry]
    dead: dict[str, int]


class Finish(NamedTuple):
    """One finished entry: where its reply goes. A `dead` reason also keeps the entry as a dead letter."""

    entry: Entry
    request_id: str
    reply: bytes
    keep_ms: int
    reply_to: str = ""
    dead: str = ""


def submit(keys: PoolKeys, submissions: Sequence[Submission], inbox: str, lifetime_ms: int) -> Call:
    """`inbox` waits for all of them; `lifetime_ms` bounds how long it does."""
    names = [*keys.streams, keys.limits, keys.rates, keys.tenants, keys.lanes]
    argv: list[Argument] = [inbox, lifetime_ms, DEFAULT_BACKLOG, DEFAULT_TENANT, DEFAULT_LIGHT, PUSH_WHOLE_UP_TO]
    for request_id, stream, tenant, field, value, size in submissions:
        names += (keys.reply(request_id), keys.waiters(request_id))
        argv += (stream + 1, tenant, field if field == "d" else f"{field}:{size}", value)
    return Call(SUBMIT, names, argv)


class Answers(list[Answer]):
    """What submit says of each request, in order; `generation` of the pool's published models at that moment."""

    generation = b""


def submit_answers(pool: str, raw: Sequence[Any]) -> Answers:
    answers = Answers(_answer(pool, one) for one in raw[:-1])
    if raw:
        answers.generation = raw[-1]
    return answers


def notes(answers: Sequence[Answer]) -> list[int]:
    """Which answers are the keys of long replies."""
    return [index for index, one in enumerate(answers) if isinstance(one, bytes) and one.startswith(NOTE)]


def _answer(pool: str, one: Any) -> Answer:
    if isinstance(one, int):
        return Admitted(one)
    if isinstance(one, bytes):
        return one
    what, count, bound, wait = one
    text = _BOUNDS[what].format(count=_text(count), bound=_text(bound), pool=pool, wait=wait)
    return Overloaded(text, wait, what.decode())


#: What submit says of the bound that refuses a request.
_BOUNDS = {
    b"backlog": "pool '{pool}' holds {count} unfinished requests (bound {bound}); retry in {wait} ms or add workers",
    b"bytes": "pool '{pool}' holds {count} bytes of requests (bound {bound}); retry in {wait} ms or add workers",
    b"tenant": "this tenant has {count} unfinished requests in pool '{pool}' (bound {bound}); retry in {wait} ms",
    b"rate": "this tenant may send {bound} requests a second to pool '{pool}' (burst {count}); retry in {wait} ms",
}


def _text(number: int | bytes) -> str:
    return str(number) if isinstance(number, int) else number.decode()


def take(keys: PoolKeys, consumer: str, shares: tuple[int, int, int], bulk: bool = True) -> Call:
    argv: tuple[Argument, ...] = (GROUP, consumer, *shares, int(bulk))
    return Call(TAKE, (*keys.streams, keys.leases, keys.cancelled, keys.lanes), argv)


def taken(raw: Sequence[Any]) -> Taken:
    now, live, lapsed, cancelled, workers, left, *given = raw
    pairs = zip(given[::2], given[1::2], strict=True)
    entries = [_entry(stream - 1, id, fields, 0) for stream, found in pairs for id, fields in found]
    return Taken(now, bool(live), bool(lapsed), entries, frozenset(_place(one) for one in cancelled), workers, left)


def _place(text: bytes) -> Place:
    """The scripts write `<stream 1-15>:<entry id>`."""
    stream, _, id = text.partition(b":")
    return int(stream) - 1, id


def entries_read(keys: PoolKeys, raw: Sequence[Any] | None) -> list[Entry]:
    """The reply of a plain XREADGROUP over the pool's streams, as redis-py gives it: fields are dicts."""
    number = keys.number_of
    return [_entry_of(number(name), id, fields, 0) for name, found in raw or () for id, fields in found if fields]


def _entry(stream: int, id: bytes, fields: Sequence[bytes], deliveries: int) -> Entry:
    if len(fields) == 2 and fields[0] == b"d":
        return Entry(stream, id, fields[1], None, b"", deliveries)
    return _entry_of(stream, id, dict(zip(fields[::2], fields[1::2], strict=True)), deliveries)


def _entry_of(stream: int, id: bytes, fields: Mapping[bytes, bytes], deliveries: int) -> Entry:
    return Entry(stream, id, fields.get(b"d"), fields.get(b"r"), fields.get(b"t", b""), deliveries)


def complete(keys: PoolKeys, finishes: Sequence[Finish]) -> Call:
    numbers: dict[int, int] = {}
    names: list[str] = []
    argv: list[Argument] = []
    payloads: list[str] = []
    payload_items: list[Argument] = []
    dead: list[Argument] = []
    for number, (entry, request_id, reply, keep_ms, reply_to, reason) in enumerate(finishes, 1):
        names += (keys.reply(request_id), keys.waiters(request_id))
        stream = numbers.setdefault(entry.stream + 1, len(numbers) + 1)
        argv += (stream, entry.id, entry.counted, reply_to, keep_ms, reply)
        if reason:
            dead += (number, reason, entry.deliveries)
        elif entry.reference is not None and keys.id_of_payload(entry.reference.decode(errors="replace")) is not None:
            # A dead letter's payload stays until its TTL, for whoever looks at the letter.
            payloads.append(entry.reference.decode())
            payload_items.append(number)
    first = (keys.tenants, keys.lanes, keys.dead, keys.cancelled, *(keys.streams[number - 1] for number in numbers))
    head = (GROUP, len(finishes), len(dead) // 3, INBOX_LIFETIME_MS, PUSH_WHOLE_UP_TO, MAX_DEAD_LETTERS, len(numbers))
    return Call(COMPLETE, [*first, *names, *payloads], [*head, *numbers, *argv, *dead, *payload_items])


def renew(keys: PoolKeys, lease_ms: int, workers: Iterable[tuple[str, bytes]]) -> Call:
    argv: list[Argument] = [lease_ms, max(PRESENCE_MS, 6 * lease_ms)]
    for consumer, description in workers:
        argv += (consumer, description)
    return Call(RENEW, (keys.leases, keys.workers, keys.models), argv)


def reclaim(keys: PoolKeys, consumer: str, most: int) -> Call:
    return Call(RECLAIM, (*keys.streams, keys.leases, keys.workers), (GROUP, consumer, most, ENDED_LEASE_MS))


def reclaimed(raw: Sequence[Any]) -> Reclaimed:
    now_ms, entries, held = raw
    return Reclaimed(
        now_ms,
        [_entry(stream - 1, id, fields, deliveries) for stream, id, fields, deliveries in entries],
        {name.decode(): count for name, count in zip(held[::2], held[1::2], strict=True) if name != RELEASED.encode()},
    )


def release(keys: PoolKeys, consumer: str, places: Iterable[Place]) -> Call:
    """Hand back entries that `consumer` holds."""
    argv: list[Argument] = [GROUP, consumer, RELEASED]
    for stream, id in places:
        argv += (stream + 1, id)
    return Call(RELEASE, (*keys.streams, keys.leases), argv)


def cancel(keys: PoolKeys, inbox: str, request_ids: Iterable[str]) -> Call:
    names = [keys.cancelled, *(keys.waiters(request_id) for request_id in request_ids)]
    return Call(CANCEL, names, (inbox, CANCEL_MARK_MS))


def steer(keys: PoolKeys, model: str, before: bytes, after: bytes) -> Call:
    """`after` in place of `before`, the model's plan as it was read; either may be empty."""
    return Call(STEER, (keys.traffic,), (model, before, after))


class Forgotten(NamedTuple):
    """What a pool held that was to be forgotten; nothing of it has changed where that was not `done`."""

    done: bool
    workers: int
    unfinished: int
    letters: int


def forget(keys: PoolKeys, force: bool) -> Call:
    """Remove the pool; with `force` even where it holds unfinished requests or dead letters."""
    return Call(FORGET, (*keys.streams, keys.dead, keys.leases, *keys.bookkeeping), (int(force),))


def forgotten(raw: Sequence[int]) -> Forgotten:
    done, *counts = raw
    return Forgotten(bool(done), *counts)


def published(keys: PoolKeys) -> list[tuple[str, ...]]:
    """The commands that read what workers publish of their models, and what operators say of them.

    The generation first: where the models change in between, it is an old one.
    """
    return [("HGET", keys.limits, GENERATION), ("HGETALL", keys.models), ("HGETALL", keys.traffic)]


def published_read(raw: Sequence[Any]) -> Published:
    generation, models, traffic = raw
    return Published(models_read(models), models_read(traffic), generation or b"")


def inbox_values(first: Sequence[bytes] | None, more: Iterable[Sequence[bytes] | None]) -> list[bytes]:
    """The values that one BLPOP and an LPOP of each inbox behind it took."""
    values = [first[1]] if first else []
    for found in more:
        values += found or ()
    return values


class Published(NamedTuple):
    """`models`: `name:version` -> metadata, from workers. `traffic`: model -> plan, from operators.

    `generation` changes with each change of the models.
    """

    models: Mapping[str, bytes]
    traffic: Mapping[str, bytes]
    generation: bytes = b""


def time_read(raw: Sequence[Any]) -> int:
    """TIME's reply, seconds and microseconds, as milliseconds."""
    seconds, micros = raw
    return int(seconds) * 1000 + int(micros) // 1000


def models_read(raw: Mapping[bytes, bytes] | Sequence[bytes]) -> dict[str, bytes]:
    """HGETALL's reply, a map or a flat list, as redis-py gives it: `name:version` -> metadata, model -> plan."""
    pairs = raw.items() if isinstance(raw, Mapping) else zip(raw[::2], raw[1::2], strict=True)
    return {name.decode(errors="replace"): data for name, data in pairs}
