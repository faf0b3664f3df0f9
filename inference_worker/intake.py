"""The worker's way in: take entries as there is room, admit them, and hold their parts for the runner."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from threading import Condition, Lock
from typing import TYPE_CHECKING

from common.backoff import Backoff
from common.broker import Broker, read_entries
from common.connect import BLOCK_MS, SOCKET_TIMEOUT_S
from common.errors import BrokerUnavailable
from common.keys import is_bulk
from common.scripts import MAX_BATCH, Entry, Place, Taken
from inference_worker.admission import Admission, Waiting
from inference_worker.clock import RedisClock
from inference_worker.holding import Holding
from inference_worker.item import Item, Part
from inference_worker.marks import Marks
from inference_worker.models.held import Held
from inference_worker.outbox import Outbox
from inference_worker.outcome import Refusal, refused
from inference_worker.parked import Parked
from inference_worker.passing import SHORTEST_S, Passing
from inference_worker.pipeline.aside import Aside
from inference_worker.seldom import Outage
from inference_worker.shares import Shares

if TYPE_CHECKING:
    import redis

log = logging.getLogger(__name__)

#: Under light load entries come by the blocking read alone; `take` still looks so often for lapsed leases and marks.
LOOK_EVERY_S = 0.5
#: A slow preprocess must not keep the device waiting for the rest of what was taken.
HAND_OVER_AFTER_S = 0.002
#: After a lost connection the entries that Redis counts as ours are compared with those that we have, for so long.
DOUBT_S = 2 * SOCKET_TIMEOUT_S
#: What is left for other workers is looked at again after so long: one of them may take none.
LEAVE_S = 0.002
#: Entries that wait for a model are looked at so often: whoever loads it cannot end a blocking read.
LOOK_AT_PARKED_S = 0.02
#: While a dead worker's entries are taken over one at a time, a blocking read must end as soon as the next may come.
LOOK_AT_LAPSED_S = 0.02
#: Up to so many entries at once are light load.
FEW = 8


class Intake:
    """One step at a time, in the runner's thread while that has nothing to run, else in a thread of its own.

    Under light load a request then passes from Redis to the model and back without a change of
    threads, each of which costs as much as a round trip; under load the two overlap. `blocking` is
    used by nobody else.
    """

    def __init__(
        self,
        broker: Broker,
        blocking: redis.Redis,
        consumer: str,
        admission: Admission,
        holding: Holding,
        outbox: Outbox,
        marks: Marks,
        clock: RedisClock,
        held: Held,
        parked: Parked,
        aside: Aside,
    ) -> None:
        self._broker = broker
        self._blocking = blocking
        self._consumer = consumer
        self._admission = admission
        self._holding = holding
        self._outbox = outbox
        self._marks = marks
        self._clock = clock
        self._held = held
        self._parked = parked
        self._aside = aside
        self._shares = Shares()
        self._backoff = Backoff()
        self._outage = Outage()
        self._taken: deque[Entry] = deque()  # not decoded yet
        self._looked_s = float("-inf")
        self._backlog = True
        self._passing = Passing()
        self._workers = 1
        self._lapsed = False
        self._dead: set[str] = set()  # of whom entries are taken over just now
        self._suspect: Place = (0, b"")  # the entry taken over last that a worker died with
        self._doubtful_until_s = self._strays_at_s = float("-inf")
        self._turn = Lock()  # held by whoever takes
        self._called = Condition()
        self._wanted = self._ended = False
        #: The last step found more than a few entries: the next one is worth a thread beside the runner.
        self.busy = False

    def run(self) -> None:
        """The thread: steps from `call` to `rest`, until `end` or until the holding is closed."""
        while not self._holding.closed and self._wait_for_call():
            with self._turn:
                while self._wanted and not self._holding.closed:
                    if not self._may_pass:
                        self._holding.wait_for_room(LOOK_EVERY_S)
                    self._step()
            self._holding.wake()

    def call(self) -> None:
        """The runner runs: take beside it."""
        if not self._wanted:
            with self._called:
                self._wanted = True
                self._called.notify()

    def rest(self) -> None:
        """The runner waits: it may take by itself."""
        self._wanted = False

    def lead(self) -> bool:
        """One step in the caller's thread, waiting up to a second; False, at once, where the thread is at it."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            self._step()
        finally:
            self._turn.release()
        return True

    def end(self) -> None:
        """Let the thread end. What was taken and not decoded can then be given back by `give_back_rest`."""
        with self._called:
            self._ended = True
            self._called.notify()

    def give_back_rest(self) -> None:
        give_back(self._broker, self._consumer, self._held, (*self._taken, *self._parked))
        self._taken.clear()

    def _wait_for_call(self) -> bool:
        with self._called:
            self._called.wait_for(lambda: self._wanted or self._ended)
            return not self._ended

    def _step(self) -> None:
        try:
            if time.monotonic() < self._doubtful_until_s:
                self._give_back_strays()
            self._taken.extendleft(reversed(self._parked.take_ready()))
            if not self._taken:
                entries = self._entries_for(min(MAX_BATCH, self._holding.room, self._parked.room))
                self._held.take(entry.place for entry in entries)
                self._taken.extend(entries)
                self.busy = len(entries) > FEW
            self._admit()
            self._backoff.reset()
            if self._outage.over():
                log.warning("Redis gives entries again")
        except BrokerUnavailable as error:
            self._recover(error)

    @property
    def _may_pass(self) -> bool:
        return self._passing.wanted and not self._taken and self._parked.room > 0 and self._holding.room_behind > 0

    def _entries_for(self, room: int) -> list[Entry]:
        self._passing.saw(room, time.monotonic())
        if room == 0 and self._may_pass:
            return self._entries_of_others()
        entries = self._entries(room)
        if entries:
            self._passing.took(entry.stream for entry in entries)
        return entries

    def _entries_of_others(self) -> list[Entry]:
        """A tenant's backlog fills the holding: what others send need not wait until there is room."""
        look_s = self._passing.look_s
        if look_s == 0:
            self._holding.wait_for_room(SHORTEST_S)
            return []
        count = FEW if self._workers <= 1 else 1
        return read_entries(self._blocking, self._broker.keys, self._consumer, count, look_s, bulk=False)

    def _entries(self, room: int) -> list[Entry]:
        """About `room` entries at most: of dead workers, by `take` while there is a backlog, or the next to come."""
        if self._lapsed and room and (entries := self._reclaim(room)):
            return entries
        if self._backlog or time.monotonic() - self._looked_s >= LOOK_EVERY_S:
            taken = self._look(room)
            if not taken.live:
                time.sleep(0.05)  # Our lease has run out or is not there yet: the supervisor renews it.
                return []
            if taken.entries or room == 0:
                return taken.entries
            if taken.left > 0:
                time.sleep(LEAVE_S)  # It is the others' share: a blocking read would take it from them.
                return []
        if room:
            return self._wait(room)
        if not self._parked.room:
            time.sleep(LOOK_AT_PARKED_S)
        return []

    def _reclaim(self, room: int) -> list[Entry]:
        """What drained workers handed back, and of what workers died with one at a time.

        Each claim counts as a delivery: claimed together, the neighbours of a request that kills
        workers would be taken for its like.
        """
        if self._suspect in self._held:
            return []
        found: list[Entry] = []
        while len(found) < room:
            _, entries, dead = self._broker.reclaim(self._consumer, 1)
            if not entries:
                self._lapsed = False
                self._dead.clear()
                break
            self._tell_of(dead)
            found += entries
            if entries[0].deliveries:
                self._suspect = entries[0].place
                break
        return found

    def _tell_of(self, dead: Mapping[str, int]) -> None:
        """Once of each, when the first of its requests comes; the pool's other workers take over some as well."""
        for worker in dead.keys() - self._dead:
            log.warning("worker %s let its lease run out; %d requests taken over", worker, dead[worker])
        self._dead |= dead.keys()

    def _look(self, room: int) -> Taken:
        taken = self._broker.take(self._consumer, self._shares.split(room))
        self._looked_s = time.monotonic()
        self._clock.set(taken.now_ms)
        self._marks.set_cancelled(taken.cancelled)
        self._workers = taken.workers
        self._backlog = not taken.live or len(taken.entries) >= room or taken.left > 0
        self._lapsed = self._lapsed or taken.lapsed
        return taken

    def _wait(self, room: int) -> list[Entry]:
        # Each of the streams may give so many. Beside other workers one must do: the rest of what came with it
        # is shared out by the next take.
        count = max(1, room // len(self._broker.keys.streams)) if self._workers <= 1 else 1
        entries = read_entries(self._blocking, self._broker.keys, self._consumer, count, self._patience_s)
        self._backlog = len(entries) >= count
        return entries

    @property
    def _patience_s(self) -> float:
        if self._parked:
            return LOOK_AT_PARKED_S
        return LOOK_AT_LAPSED_S if self._lapsed else BLOCK_MS / 1000

    def _admit(self) -> None:
        """Hold what can run and refuse the rest; what there is no room or time for stays for the next step."""
        taken_s, now_ms = time.monotonic(), self._clock.now_ms()
        room = self._holding.room
        if self._taken and not is_bulk(self._taken[0].stream):
            room = self._holding.room_behind
        parts: list[Part] = []
        rows = 0
        while self._taken and rows < room and time.monotonic() - taken_s < HAND_OVER_AFTER_S:
            # Only then no longer among the taken: Redis may go away while a large payload is fetched.
            admitted = self._admission.admit(self._taken[0], taken_s, now_ms)
            self._taken.popleft()
            if isinstance(admitted, Refusal):
                self._outbox.refuse(admitted)
            elif isinstance(admitted, Waiting):
                self._parked.add(admitted.entry, admitted.key)
            elif isinstance(admitted, Item):
                self._aside.put(admitted, self._prepare)
                rows += admitted.model_request.rows
            else:
                parts += admitted
                rows += admitted[0].item.model_request.rows
        if parts and not self._holding.add(parts):
            # They came in while the worker began to drain.
            give_back(self._broker, self._consumer, self._held, (part.item.entry for part in parts))

    def _prepare(self, item: Item) -> None:
        """In a thread of the model's preprocess stage: hold its parts, or refuse it; in a drain hand it back."""
        if self._holding.closed:
            self._hand_back(item)
            return
        error = self._marks.check(item)
        prepared = self._admission.prepare(item) if error is None else refused(item, error)
        if isinstance(prepared, Refusal):
            self._outbox.refuse(prepared)
        elif not self._holding.add(prepared):
            self._hand_back(item)

    def _hand_back(self, item: Item) -> None:
        try:
            give_back(self._broker, self._consumer, self._held, [item.entry])
        except BrokerUnavailable as error:
            log.warning("a request is taken over when the lease has run out: %s", error)

    def _recover(self, error: BrokerUnavailable) -> None:
        """Wait, and doubt: the reply to a take may be lost, and a take that Redis has not read yet may still run."""
        if self._outage.goes_on(time.monotonic()):
            log.warning("no entries for now, Redis is tried again and again: %s", error)
        time.sleep(self._backoff.next())
        self._backlog = True
        self._doubtful_until_s = time.monotonic() + DOUBT_S

    def _give_back_strays(self) -> None:
        """Hand back what Redis counts as ours but never reached us."""
        now_s = time.monotonic()
        if now_s < self._strays_at_s:
            return
        strays = [one for one in self._broker.held(self._consumer) if one not in self._held]
        if strays:
            log.warning("handing back %d entries whose delivery was lost", len(strays))
            self._broker.release(self._consumer, strays)
        self._strays_at_s = now_s + LOOK_EVERY_S


def give_back(broker: Broker, consumer: str, held: Held, entries: Iterable[Entry]) -> None:
    """Hand entries back unfinished; their delivery counts stay as they were."""
    ours = sorted({entry.place for entry in entries})
    for start in range(0, len(ours), MAX_BATCH):
        broker.release(consumer, ours[start : start + MAX_BATCH])
    held.finish(ours)
