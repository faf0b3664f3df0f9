"""200 clients at a pool's bound: how often they submit in vain, and whether all get on. No clock, no Redis."""

from __future__ import annotations

import random
from collections import deque
from itertools import count
from typing import cast

import pytest

from common.errors import Overloaded
from common.keys import PoolKeys
from common.scripts import Admitted
from gateway.flight import Ticket
from gateway.payload import parcel
from gateway.pending import Pending, Submit
from gateway.result import Result

CLIENTS, EACH, WINDOW = 200, 60, 16
KEYS = PoolKeys("p")
STEP_S = 0.01


class Client:
    """Hands in its requests through a window, as `map` does."""

    def __init__(self, number: int, requests: int, window: int) -> None:
        names = count()
        self.pending = Pending(lambda: f"new{next(names)}")
        self.tickets = [
            Ticket(f"{number}-{one}", "p", "m", deadline=1e9, timeout_s=1e9, patient=True) for one in range(requests)
        ]
        self.handed_in = self.done = 0
        self.window = window

    def step(self, pool: Pool, now: float, chance: random.Random) -> None:
        while self.handed_in < min(len(self.tickets), self.done + self.window):
            ticket = self.tickets[self.handed_in]
            self.pending.add(ticket, parcel(KEYS, ticket.request_id, 1, "acme", b"data"))
            self.handed_in += 1
        while (send := self.pending.next_send(now)) is not None:
            assert isinstance(send, Submit)
            said = [pool.submit(self, flight.request_id, now) for flight in send.flights]
            self.pending.submitted(send, said, now, chance.random())

    def answer(self, request_id: str, now: float) -> None:
        outcomes = self.pending.received([(request_id, cast(Result, object()))], now)
        assert len(outcomes) == 1
        self.done += 1


class Pool:
    """Works its backlog off, `per_second`; refuses with the wait that submit.lua suggests."""

    def __init__(self, bound: int, per_second: float) -> None:
        self.bound, self.per_second = bound, per_second
        self.backlog: deque[tuple[float, Client, str]] = deque()
        self.submitted = self.finished = 0

    def submit(self, client: Client, request_id: str, now: float) -> Admitted | Overloaded:
        self.submitted += 1
        if len(self.backlog) >= self.bound:
            age_ms = (now - self.backlog[0][0]) * 1000
            return Overloaded("full", int(max(50, min(10_000, age_ms / 8))), "backlog")
        self.backlog.append((now, client, request_id))
        return Admitted.QUEUED

    def work(self, now: float) -> None:
        while self.backlog and self.finished < now * self.per_second:
            _, client, request_id = self.backlog.popleft()
            self.finished += 1
            client.answer(request_id, now)


class RatedPool(Pool):
    """One tenant's token bucket with a burst of one, as submit.lua has it, and workers who are never behind."""

    def __init__(self, per_second: float) -> None:
        super().__init__(10**9, 10**9)
        self.each_s, self.free_s = 1 / per_second, 0.0

    def submit(self, client: Client, request_id: str, now: float) -> Admitted | Overloaded:
        if self.free_s > now:
            self.submitted += 1
            return Overloaded("rate", int(max(self.free_s - now, self.each_s) * 1000) + 1, "rate")
        self.free_s = now + self.each_s
        return super().submit(client, request_id, now)


def run(pool: Pool, clients: int, each: int, window: int) -> float:
    """Seconds until all have all their answers."""
    chance = random.Random(7)
    crowd = [Client(number, each, window) for number in range(clients)]
    now = 0.0
    while any(client.done < each for client in crowd):
        assert now < 1_000, f"clients starve: {sorted(client.done for client in crowd)[:5]}"
        for client in chance.sample(crowd, clients):
            client.step(pool, now, chance)
        now += STEP_S
        pool.work(now)
    return now


@pytest.mark.parametrize(("bound", "per_second"), [(100, 400.0), (1_000, 400.0), (100, 100.0)])
def test_200_clients_submit_less_than_twice_what_is_finished_and_keep_the_pool_busy(
    bound: int, per_second: float
) -> None:
    pool = Pool(bound, per_second)

    seconds = run(pool, CLIENTS, EACH, WINDOW)

    assert pool.submitted < 2 * pool.finished
    assert pool.finished / seconds > 0.9 * per_second


def test_one_client_whose_window_is_wider_than_the_bound_keeps_the_pool_busy() -> None:
    pool = Pool(64, 1_000.0)

    seconds = run(pool, 1, 5_000, 256)

    assert pool.submitted < 1.5 * pool.finished
    assert pool.finished / seconds > 0.9 * 1_000


def test_one_client_over_its_tenants_rate_comes_about_as_often_as_there_are_tokens() -> None:
    pool = RatedPool(20.0)

    seconds = run(pool, 1, 1_000, 64)

    assert pool.submitted < 2 * pool.finished
    assert pool.finished / seconds > 0.6 * 20
