"""Short forms of the broker's operations, for tests that tell a story in them."""

from __future__ import annotations

from typing import Any

from common.broker import Broker
from common.keys import BULK_LANES, PRIORITIES
from common.scripts import BYTES, Answer, Entry, Finish, Submission

#: A redis.Redis. Its own annotations name every type that any setting of the driver could give.
Redis = Any

HIGH, NORMAL, LOW, HIGH_BULK, NORMAL_BULK, LOW_BULK = range(6)
#: The bulk lanes of normal, from the first to the last.
NORMAL_LANES = range(NORMAL_BULK, len(PRIORITIES) * (BULK_LANES + 1), len(PRIORITIES))
#: Longer than any test.
LONG_MS = 60_000
ALL = (100, 100, 100)


def request(request_id: str, stream: int = NORMAL, tenant: str = "", payload: bytes = b"request") -> Submission:
    return Submission(request_id, stream, tenant, "d", payload)


def inbox(broker: Broker, name: str = "client") -> str:
    return broker.keys.inbox(name)


def submit(
    broker: Broker, *submissions: Submission | str, client: str = "client", lifetime_ms: int = LONG_MS
) -> list[Answer]:
    """Requests, or just their ids, that the client's inbox waits for."""
    requests = [request(one) if isinstance(one, str) else one for one in submissions]
    return broker.submit(requests, inbox(broker, client), lifetime_ms)


def lease(broker: Broker, *consumers: str, ms: int = LONG_MS) -> None:
    broker.renew(ms, [(consumer, b"description") for consumer in consumers])


def end_lease(broker: Broker, *consumers: str) -> None:
    lease(broker, *consumers, ms=0)


def take(broker: Broker, consumer: str = "worker", shares: tuple[int, int, int] = ALL) -> list[Entry]:
    """Renews the worker's lease, then takes."""
    lease(broker, consumer)
    return broker.take(consumer, shares).entries


def finish(entry: Entry, request_id: str, reply: bytes = b"reply", keep_ms: int = LONG_MS, **more: str) -> Finish:
    return Finish(entry, request_id, reply, keep_ms, **more)


def add_raw(client: Redis, broker: Broker, payload: bytes = b"raw", stream: int = NORMAL, **fields: str) -> bytes:
    """What a producer without our client does: one XADD. The entry's id."""
    entry_id: bytes = client.xadd(broker.keys.streams[stream], {"d": payload, **fields})
    return entry_id


def replies(client: Redis, broker: Broker, name: str = "client") -> list[bytes]:
    """All that lies in the client's inbox, in order."""
    found: list[bytes] = client.lrange(inbox(broker, name), 0, -1)
    return found


def unfinished(client: Redis, broker: Broker) -> list[int]:
    """The unfinished entries of high, normal and low, all lanes together."""
    lengths = [client.xlen(stream) for stream in broker.keys.streams]
    return [sum(lengths[priority :: len(PRIORITIES)]) for priority in range(len(PRIORITIES))]


def tenants(client: Redis, broker: Broker) -> dict[str, int]:
    counts = client.hgetall(broker.keys.tenants)
    return {name.decode(): int(count) for name, count in counts.items() if name != BYTES}


def counted_bytes(client: Redis, broker: Broker) -> int:
    return int(client.hget(broker.keys.tenants, BYTES) or 0)


def pending(client: Redis, broker: Broker, stream: int = NORMAL) -> dict[str, list[bytes]]:
    """Consumer -> the entry ids that are in its hands."""
    found: dict[str, list[bytes]] = {}
    for one in client.xpending_range(broker.keys.streams[stream], "workers", "-", "+", 100_000):
        found.setdefault(one["consumer"].decode(), []).append(one["message_id"])
    return found


def consumers(client: Redis, broker: Broker, stream: int = NORMAL) -> set[str]:
    return {one["name"].decode() for one in client.xinfo_consumers(broker.keys.streams[stream], "workers")}


def leased(client: Redis, broker: Broker) -> set[str]:
    """The consumers that have a lease, live or ended."""
    return {name.decode() for name in client.zrange(broker.keys.leases, 0, -1)}


def letters(client: Redis, broker: Broker) -> list[dict[bytes, bytes]]:
    """The fields of all dead letters, the oldest first."""
    return [fields for _, fields in client.xrange(broker.keys.dead)]


def script_micros(client: Redis) -> int:
    """The time that Redis has spent in scripts since it started, in microseconds."""
    statistics = client.info("commandstats")
    return sum(statistics.get(f"cmdstat_{name}", {}).get("usec", 0) for name in ("eval", "evalsha"))
