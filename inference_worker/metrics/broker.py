"""What is measured of a worker's calls to Redis: results that go out, and requests that are taken over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.broker import Broker
from common.keys import PRIORITIES, priority_of
from common.metrics.declared import DEAD_LETTERS, LOST_LEASES, PUBLISH, RECLAIMED, REQUEST, REQUESTS, RETRIES
from common.metrics.recording import Recorder
from common.scripts import Finish, Reclaimed, Taken
from inference_worker.clock import RedisClock

if TYPE_CHECKING:
    import redis

#: So many workers that are gone are remembered, so that each counts once.
_REMEMBERED = 256


class BrokerMeter:
    """The series of a pool's broker. What an alert watches is there from the start: at 0, or its first step is lost."""

    def __init__(self, recorder: Recorder, pool: str) -> None:
        self._clock = RedisClock()
        self._publish = recorder.histogram(PUBLISH, pool)
        self._requests = [recorder.number(REQUESTS, pool, priority) for priority in PRIORITIES]
        self._whole = [recorder.histogram(REQUEST, pool, priority) for priority in PRIORITIES]
        self._letters = recorder.number(DEAD_LETTERS, pool)
        self._retries = recorder.number(RETRIES, pool)
        self._reclaimed = recorder.number(RECLAIMED, pool)
        self._lost = recorder.number(LOST_LEASES, pool)
        self._gone: dict[str, None] = {}

    def metered(self, client: redis.Redis, pool: str) -> Broker:
        return MeteredBroker(client, pool, self)

    def taken(self, taken: Taken) -> None:
        self._clock.set(taken.now_ms)

    def completed(self, finishes: Sequence[Finish], seconds: float) -> None:
        """Redis has taken these. By whoever sends results: one thread at a time."""
        self._publish.add([seconds])
        now_ms = self._clock.now_ms()
        entries = [finish.entry for finish in finishes]
        streams = {entry.stream for entry in entries}
        for stream in streams:
            ids = [entry.id for entry in entries if entry.stream == stream] if len(streams) > 1 else None
            self._answered(priority_of(stream), ids or [entry.id for entry in entries], now_ms)
        if letters := [finish.dead for finish in finishes if finish.dead]:
            self._letters.add(len(letters))

    def _answered(self, priority: int, ids: Sequence[bytes], now_ms: int) -> None:
        self._requests[priority].add(len(ids))
        ages = [(now_ms - int(id.partition(b"-")[0])) / 1000 for id in ids]
        # Redis's clock is known to a millisecond, and another server's may be behind.
        self._whole[priority].add(ages if min(ages) >= 0 else [max(0.0, age) for age in ages])

    def reclaimed(self, reclaimed: Reclaimed) -> None:
        """By whoever takes: one thread at a time."""
        self._reclaimed.add(len(reclaimed.entries))
        self._retries.add(sum(entry.deliveries > 0 for entry in reclaimed.entries))
        news = reclaimed.dead.keys() - self._gone.keys()
        self._lost.add(len(news))
        self._gone |= dict.fromkeys(news)
        while len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]


class MeteredBroker(Broker):
    """A broker whose calls are counted once they have succeeded."""

    def __init__(self, client: redis.Redis, pool: str, meter: BrokerMeter) -> None:
        super().__init__(client, pool)
        self._meter = meter

    def take(self, consumer: str, shares: tuple[int, int, int], bulk: bool = True) -> Taken:
        taken = super().take(consumer, shares, bulk)
        self._meter.taken(taken)
        return taken

    def complete(self, finishes: Sequence[Finish]) -> int:
        began_s = time.monotonic()
        first = super().complete(finishes)
        self._meter.completed(finishes, time.monotonic() - began_s)
        return first

    def reclaim(self, consumer: str, most: int) -> Reclaimed:
        reclaimed = super().reclaim(consumer, most)
        self._meter.reclaimed(reclaimed)
        return reclaimed
