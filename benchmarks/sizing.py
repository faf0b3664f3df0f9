"""What Redis's memory holds for a waiting request and for a kept reply, beyond their own bytes: for sizing `maxmemory`.

    python -m benchmarks.sizing [--waiting 20000]

Reads used_memory of a Redis of its own before and after. An entry is as our clients' submit makes it, with its waiter.
"""

from __future__ import annotations

import argparse
from typing import Any
from uuid import uuid4

from common.broker import Broker
from common.connect import connect
from common.embedded import EmbeddedRedis
from common.scripts import Entry, Finish, Submission

BATCH = 64
SIZES = (100, 1_500, 16_000, 200_000)
#: All of a size may not be in memory at a time beyond this.
MOST_BYTES = 400_000_000
LONG_MS = 3_600_000
INBOX = "client"
ID_BYTES = 32
REPLY = b"y" * 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=20_000)
    waiting = parser.parse_args().waiting
    print(f"{'request':>9}  {'waiting request':>16}  {'beyond its bytes':>16}  {'kept reply of 200 bytes':>24}")
    for size in SIZES:
        count = min(waiting, MOST_BYTES // size)
        with EmbeddedRedis() as server, connect(server.url) as client:
            broker = Broker(client, "sizing")
            broker.create_groups()
            broker.renew(LONG_MS, [("worker", b"")])
            empty = used(client)
            fill(broker, count, size)
            full = used(client)
            answer(broker, client)
            kept = used(client)
        print(
            f"{size:>9,}  {(full - empty) / count:>16,.0f}  {(full - empty) / count - size:>16,.0f}"
            f"  {(kept - empty) / count:>24,.0f}"
        )


def used(client: Any) -> int:
    return int(client.info("memory")["used_memory"])


def fill(broker: Broker, count: int, size: int) -> None:
    rest = b"x" * (size - ID_BYTES)
    for start in range(0, count, BATCH):
        ids = [uuid4().hex for _ in range(start, min(start + BATCH, count))]
        requests = [Submission(one, 1, "", "d", one.encode() + rest) for one in ids]
        broker.submit(requests, broker.keys.inbox(INBOX), LONG_MS)


def answer(broker: Broker, client: Any) -> None:
    """All of them; what a client reads away is removed, so that what stays are the reply keys."""
    while entries := broker.take("worker", (BATCH, BATCH, BATCH)).entries:
        broker.complete([Finish(entry, id_of(entry), REPLY, LONG_MS) for entry in entries])
    client.delete(broker.keys.inbox(INBOX))


def id_of(entry: Entry) -> str:
    return (entry.payload or b"")[:ID_BYTES].decode()


if __name__ == "__main__":
    main()
