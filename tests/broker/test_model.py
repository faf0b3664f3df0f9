"""Random interleavings of all operations, compared after each step with a few dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING
from uuid import uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from common.broker import Broker
from common.errors import Overloaded
from common.keys import RELEASED
from common.scripts import Admitted, Entry, Submission
from tests.support.leaks import keys_of, leaked_keys
from tests.support.operations import (
    add_raw,
    counted_bytes,
    end_lease,
    finish,
    inbox,
    lease,
    letters,
    pending,
    replies,
    submit,
    tenants,
)

if TYPE_CHECKING:
    import redis

IDS = st.sampled_from("abcde")
CLIENTS = st.sampled_from(["one", "two"])
WORKERS = st.sampled_from(["w1", "w2", "w3"])
STREAMS = st.integers(0, 2)
LANES = st.integers(0, 14)
#: Small, so that a few requests are a backlog.
LIGHT, IN_FLIGHT, BYTES_BOUND = 2, 4, 12
TENANTS = st.sampled_from(["", "acme", "other"])
SHARES = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
#: What a producer without our client names as its reply_to.
RAW = "raw"


@dataclass
class Work:
    """One entry as the model sees it. `holder` is None while it waits."""

    number: int
    request_id: str
    stream: int
    tenant: str
    size: int = 0
    holder: str | None = None
    deliveries: int = 0
    cancelled: bool = False

    @property
    def raw(self) -> bool:
        return self.request_id.startswith(RAW)


@dataclass
class Model:
    """What Redis should hold. Entries are known by their payload, a number."""

    work: dict[int, Work] = field(default_factory=dict)
    waiting: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    inboxes: dict[str, list[bytes]] = field(default_factory=lambda: {"one": [], "two": [], RAW: []})
    live: set[str] = field(default_factory=set)
    dead: list[int] = field(default_factory=list)
    #: Tenant -> its bulk lane.
    lanes: dict[str, int] = field(default_factory=dict)

    def submit(self, number: int, request: Submission, client: str) -> Admitted | bytes | str:
        """A refusal is the name of its bound."""
        one = request.request_id
        if one in self.stored:
            return self.stored[one]
        if one in self.waiting:
            clients = self.waiting[one][1]
            if client not in clients:
                clients.append(client)
            return Admitted.JOINED
        mine, size = self.of_tenant(request.tenant), len(request.value)
        if self.bytes and self.bytes + size > BYTES_BOUND:
            return "bytes"
        if request.tenant and mine >= IN_FLIGHT:
            return "tenant"
        lane = self.lane_of(request.tenant) if request.tenant and mine >= LIGHT else 0
        stream = request.stream + 3 * lane
        self.work[number] = Work(number, one, stream, request.tenant, size)
        self.waiting[one] = (number, [client])
        return Admitted.QUEUED

    @property
    def bytes(self) -> int:
        return sum(one.size for one in self.work.values())

    def of_tenant(self, tenant: str) -> int:
        return sum(one.tenant == tenant for one in self.work.values())

    def lane_of(self, tenant: str) -> int:
        """All weigh the same: where it waits least, and of these where the fewest are."""

        def wait(lane: int) -> tuple[float, int]:
            tenants = [*self.lanes.values()].count(lane)
            return sum(one.stream // 3 == lane for one in self.work.values()) / (tenants + 1), tenants

        if tenant not in self.lanes:
            self.lanes[tenant] = min(range(1, 5), key=wait)
        return self.lanes[tenant]

    def take(self, worker: str, shares: tuple[int, int, int], bulk: bool, drawn: list[int]) -> list[int]:
        """`drawn` is what Redis handed out: how a small backlog is parted, and a small share between lanes, it draws by
        lot. How many come of each priority follows from the shares where these are not cut.
        """
        if worker not in self.live:
            return []
        queues = [
            [one.number for one in self.work.values() if one.stream == s and one.holder is None] for s in range(15)
        ]
        if not bulk:
            queues[3:] = [[] for _ in queues[3:]]
        waiting = [sum(map(len, queues[priority::3])) for priority in range(3)]
        held = sum(one.holder == worker for one in self.work.values())
        even = max(0, ceil(len(self.work) / len(self.live)) - held)
        assert len(drawn) == min(even, sum(shares), sum(waiting))
        counts = [sum(self.work[number].stream == stream for number in drawn) for stream in range(15)]
        if sum(shares) <= even:
            taken = [min(count, share) for count, share in zip(waiting, shares, strict=True)]
            spare = sum(shares) - sum(taken)
            for priority in range(3):
                more = min(spare, waiting[priority] - taken[priority])
                taken[priority] += more
                spare -= more
            assert [sum(counts[priority::3]) for priority in range(3)] == taken
        handed = [number for queue, count in zip(queues, counts, strict=True) for number in queue[:count]]
        for number in handed:
            self.work[number].holder, self.work[number].deliveries = worker, 1
        return handed

    def complete(self, batch: list[tuple[int, bytes]], kept: bool, dead: bool) -> int:
        # The script looks once who waits, before it changes anything.
        waiting = dict(self.waiting)
        return sum(self._finish(number, reply, kept, dead, waiting) for number, reply in batch)

    def _finish(
        self, number: int, reply: bytes, kept: bool, dead: bool, waiting: dict[str, tuple[int, list[str]]]
    ) -> bool:
        one = self.work.pop(number, None)
        if one is None:
            return False
        if not self.of_tenant(one.tenant):
            self.lanes.pop(one.tenant, None)
        owner, clients = waiting.get(one.request_id, (number, []))
        if owner == number:
            self.waiting.pop(one.request_id, None)
            for client in clients:
                self.inboxes[client].append(reply)
            if kept:
                self.stored[one.request_id] = reply
        if one.raw:
            self.inboxes[RAW].append(reply)
        if dead:
            self.dead.append(number)
        return True

    def cancel(self, client: str, ids: list[str]) -> int:
        marked = 0
        for one in ids:
            number, clients = self.waiting.get(one, (0, []))
            if client in clients:
                clients.remove(client)
            if one in self.waiting and not clients:
                del self.waiting[one]
                self.work[number].cancelled = True
                marked += 1
        return marked

    def release(self, worker: str, numbers: list[int]) -> int:
        mine = [self.work[n] for n in dict.fromkeys(numbers) if n in self.work and self.work[n].holder == worker]
        for one in mine:
            one.holder, one.deliveries = RELEASED, one.deliveries - 1
        return len(mine)

    def reclaim(self, worker: str, most: int) -> list[tuple[int, int]]:
        if worker not in self.live:
            return []
        left = [
            one for one in self.work.values() if one.holder and one.holder != worker and one.holder not in self.live
        ]
        left.sort(key=lambda one: (one.stream, one.holder, one.number))
        for one in left[:most]:
            one.holder, one.deliveries = worker, one.deliveries + 1
        return [(one.number, one.deliveries - 1) for one in left[:most]]

    def held(self, stream: int) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for one in self.work.values():
            if one.stream == stream and one.holder:
                found.setdefault(one.holder, []).append(one.number)
        return found


class Operations(RuleBasedStateMachine):
    """Each rule does the same to Redis and to the model, and compares what both answer."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        self.redis = client
        self.broker = Broker(client, f"model-{uuid4().hex[:12]}")
        self.broker.create_groups()
        self.broker.set_limits(tenant=IN_FLIGHT)
        self.broker.change_limits({"light": LIGHT, "bytes": BYTES_BOUND})
        self.model = Model()
        self.number = 0
        #: Every entry that was ever handed to a worker, and stays in its hands whatever Redis thinks by now.
        self.handed: list[tuple[str, Entry]] = []

    def teardown(self) -> None:
        self.redis.delete(*keys_of(self.redis, self.broker.pool))
        self.redis.srem("iw:pools", self.broker.pool)

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def hand(self, worker: str, entries: list[Entry]) -> list[int]:
        self.handed += [(worker, entry) for entry in entries]
        return [number_of(entry) for entry in entries]

    @rule(ids=st.lists(IDS, min_size=1, max_size=3), stream=STREAMS, tenant=TENANTS, client=CLIENTS)
    def submit(self, ids: list[str], stream: int, tenant: str, client: str) -> None:
        numbers = [self.next_number() for _ in ids]
        requests = [Submission(one, stream, tenant, "d", b"%d" % n) for one, n in zip(ids, numbers, strict=True)]
        expected = [self.model.submit(n, one, client) for n, one in zip(numbers, requests, strict=True)]
        answers = submit(self.broker, *requests, client=client)
        assert [one.bound if isinstance(one, Overloaded) else one for one in answers] == expected

    @rule(stream=LANES)
    def add_raw(self, stream: int) -> None:
        number = self.next_number()
        add_raw(self.redis, self.broker, b"%d" % number, stream)
        self.model.work[number] = Work(number, f"{RAW}{number}", stream, "")

    @rule(worker=WORKERS)
    def live(self, worker: str) -> None:
        lease(self.broker, worker)
        self.model.live.add(worker)

    @precondition(lambda self: self.model.live)
    @rule(worker=WORKERS)
    def die(self, worker: str) -> None:
        end_lease(self.broker, worker)
        self.model.live.discard(worker)

    @rule(worker=WORKERS, shares=SHARES, bulk=st.booleans())
    def take(self, worker: str, shares: tuple[int, int, int], bulk: bool) -> None:
        taken = self.broker.take(worker, shares, bulk)
        assert taken.live == (worker in self.model.live)
        drawn = self.hand(worker, taken.entries)
        assert drawn == self.model.take(worker, shares, bulk, drawn)
        marked = {one.number for one in self.model.work.values() if one.cancelled and one.holder == worker}
        places = {entry.place for _, entry in self.handed if number_of(entry) in marked}
        assert taken.cancelled == (places if taken.live else frozenset())

    @precondition(lambda self: self.handed)
    @rule(data=st.data(), kept=st.booleans(), dead=st.booleans())
    def complete(self, data: st.DataObject, kept: bool, dead: bool) -> None:
        finishes, batch = [], []
        for _, entry in data.draw(st.lists(st.sampled_from(self.handed), min_size=1, max_size=4)):
            number = number_of(entry)
            known = self.model.work.get(number)
            request_id = known.request_id if known else "a"
            reply_to = inbox(self.broker, RAW) if known and known.raw else ""
            reply = b"reply %d" % self.next_number()
            keep_ms, reason = 60_000 if kept else 0, "dead" if dead else ""
            finishes.append(finish(entry, request_id, reply, keep_ms, reply_to=reply_to, dead=reason))
            batch.append((number, reply))
        assert self.broker.complete(finishes) == self.model.complete(batch, kept, dead)

    @rule(client=CLIENTS, ids=st.lists(IDS, max_size=3, unique=True))
    def cancel(self, client: str, ids: list[str]) -> None:
        assert self.broker.cancel(inbox(self.broker, client), ids) == self.model.cancel(client, ids)

    @precondition(lambda self: self.handed)
    @rule(data=st.data(), worker=WORKERS)
    def release(self, data: st.DataObject, worker: str) -> None:
        chosen = [entry for _, entry in data.draw(st.lists(st.sampled_from(self.handed), max_size=4))]
        expected = self.model.release(worker, [number_of(entry) for entry in chosen])
        assert self.broker.release(worker, [entry.place for entry in chosen]) == expected

    @rule(worker=WORKERS, most=st.integers(1, 5))
    def reclaim(self, worker: str, most: int) -> None:
        entries = self.broker.reclaim(worker, most)[1]
        self.hand(worker, entries)
        assert [(number_of(entry), entry.deliveries) for entry in entries] == self.model.reclaim(worker, most)

    @invariant()
    def the_streams_lengths_are_the_unfinished_work(self) -> None:
        expected = [sum(one.stream == stream for one in self.model.work.values()) for stream in range(15)]
        assert [self.redis.xlen(stream) for stream in self.broker.keys.streams] == expected

    @invariant()
    def tenants_are_counted_right(self) -> None:
        names = [one.tenant for one in self.model.work.values() if one.tenant]
        assert tenants(self.redis, self.broker) == {name: names.count(name) for name in names}
        assert counted_bytes(self.redis, self.broker) == self.model.bytes

    @invariant()
    def every_wait_is_answered_once(self) -> None:
        assert {name: replies(self.redis, self.broker, name) for name in self.model.inboxes} == self.model.inboxes

    @invariant()
    def every_entry_is_in_the_hands_it_should_be(self) -> None:
        numbers = {entry.place: number_of(entry) for _, entry in self.handed}
        for stream in range(15):
            found = pending(self.redis, self.broker, stream)
            held = {holder: [numbers[stream, one] for one in ids] for holder, ids in found.items()}
            assert held == self.model.held(stream)

    @invariant()
    def replies_are_stored_dead_letters_kept_and_nothing_else_stays(self) -> None:
        stored = {one: self.broker.fetch(self.broker.keys.reply(one)) for one in self.model.stored}
        assert stored == self.model.stored
        assert [int(letter[b"d"]) for letter in letters(self.redis, self.broker)] == self.model.dead
        assert leaked_keys(self.redis, self.broker.pool) == []


def number_of(entry: Entry) -> int:
    assert entry.payload is not None
    return int(entry.payload)


def test_any_interleaving_of_the_operations_does_what_a_simple_model_does(redis_client):
    run_state_machine_as_test(
        lambda: Operations(redis_client),
        settings=settings(max_examples=120, stateful_step_count=30, suppress_health_check=list(HealthCheck)),
    )
