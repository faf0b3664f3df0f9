"""The floors: the same work by hand, with plain Redis commands and nothing that a service would need.

No request format, no checks, no deadlines, no leases, no dedupe, no recovery. On redis-py as it comes, which is what
a hand would write them with; the ping-pong also on this project's own connection, which spends less on a command.
The worker runs as a process of its own: python -m benchmarks.floor batches|pingpong|lean URL
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import redis

from benchmarks.harness import ROOT
from common.connect import connect as lean

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[[str], redis.Redis]

plain = redis.Redis.from_url

BATCH = 64
STREAM, GROUP, INBOX = "floor:work", "floor", "floor:inbox"


@contextmanager
def floor_worker(kind: str, url: str) -> Iterator[int]:
    """The hand-written worker process; its id."""
    client = plain(url)
    client.delete(STREAM, INBOX)
    client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.floor", kind, url], cwd=ROOT)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


def run_batches(url: str, payloads: list[bytes], in_flight: int) -> None:
    """XADD in pipelines of 64, replies by BLPOP and LPOP; each result is compared with what was sent."""
    client = plain(url)
    unanswered: dict[bytes, bytes] = {}
    waiting = iter(enumerate(payloads))
    answered = 0
    while answered < len(payloads):
        while len(unanswered) < in_flight:
            pipeline = client.pipeline(transaction=False)
            for number, payload in (next(waiting, (None, b"")) for _ in range(min(BATCH, in_flight - len(unanswered)))):
                if number is None:
                    break
                request_id = b"%016d" % number
                unanswered[request_id] = payload
                pipeline.xadd(STREAM, {b"i": request_id, b"d": payload})
            if not len(pipeline):
                break
            pipeline.execute()
        first = client.blpop([INBOX], 5)
        if first is None:
            raise RuntimeError("the floor's worker does not answer")
        for reply in (first[1], *(client.lpop(INBOX, 1000) or ())):
            if unanswered.pop(reply[:16]) != reply[16:]:
                raise RuntimeError("the floor's worker answered with another value")
            answered += 1


def run_pingpong(url: str, payload: bytes, times: int, connect: Connect) -> list[float]:
    """Seconds of each round trip: XADD, BLPOP."""
    client, seconds = connect(url), []
    for _ in range(times):
        started = time.perf_counter()
        client.xadd(STREAM, {b"d": payload})
        reply = client.blpop([INBOX], 5)
        seconds.append(time.perf_counter() - started)
        if reply is None or reply[1] != payload:
            raise RuntimeError("the floor's worker answered with another value")
    return seconds


def _serve_batches(url: str) -> None:
    client = plain(url)
    for _ in count():
        for _, entries in client.xreadgroup(GROUP, "floor", {STREAM: ">"}, count=BATCH, block=1000) or ():
            pipeline = client.pipeline(transaction=False)
            for entry_id, fields in entries:
                # What the model's part costs on the floor: the bytes become an array and bytes again.
                answer = np.frombuffer(fields[b"d"], np.float32).tobytes()
                reply = fields[b"i"] + answer
                pipeline.set(b"floor:reply:" + fields[b"i"], reply, px=60_000)
                pipeline.rpush(INBOX, reply)
                pipeline.xack(STREAM, GROUP, entry_id)
                pipeline.xdel(STREAM, entry_id)
            pipeline.execute()


def _serve_pingpong(url: str, connect: Connect = plain) -> None:
    client = connect(url)
    for _ in count():
        for _, entries in client.xreadgroup(GROUP, "floor", {STREAM: ">"}, count=1, block=1000) or ():
            for entry_id, fields in entries:
                pipeline = client.pipeline(transaction=False)
                pipeline.rpush(INBOX, fields[b"d"])
                pipeline.xack(STREAM, GROUP, entry_id)
                pipeline.xdel(STREAM, entry_id)
                pipeline.execute()


if __name__ == "__main__":
    kind, broker = sys.argv[1:]
    if kind == "batches":
        _serve_batches(broker)
    else:
        _serve_pingpong(broker, lean if kind == "lean" else plain)
