"""The supervisor: starts one process for each plan, keeps their leases, restarts and drains them. Loads no model.

One loop waits on the children's status pipes and exits and on a mailbox; the heartbeat's thread talks to Redis.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from enum import IntEnum
from functools import partial

from common.brokerurl import check_url
from common.connect import connect
from common.errors import ConfigError
from common.orders import MODEL_VERBS, Order
from inference_worker.processes.title import set_title
from inference_worker.supervision.child import COMMAND, Child, start
from inference_worker.supervision.events import Draining, Event, Obeyed, Ordered, Ready
from inference_worker.supervision.heartbeat import Heartbeat
from inference_worker.supervision.host import host_name
from inference_worker.supervision.link import Link
from inference_worker.supervision.mailbox import Mailbox
from inference_worker.supervision.presence import Presence
from inference_worker.supervision.restarts import Restarts
from inference_worker.supervision.settings import FleetSettings
from inference_worker.supervision.slot import ChildPlan, Slot
from inference_worker.supervision.stopsignals import StopSignals

#: Leases are renewed so often, and at least three times in a lease.
RENEW_S = 1.0
#: A child whose end is not seen by a descriptor is looked at so often.
LOOK_S = 1.0
#: A loop that wakes so much later than it wanted to was stopped, and its children perhaps too.
OVERSLEPT_S = 2.0
#: At the end Redis is told that the leases are over; one that hangs is not waited for any longer.
FAREWELL_S = 2.0
#: The exit code of a child that could not even be started, as shells give it.
NOT_STARTED = 127


class Wish(IntEnum):
    """What those outside want of the supervisor; it never goes back."""

    RUN = 0
    DRAIN = 1
    KILL = 2


class Supervisor:
    """Runs the planned children until it is stopped. `on_event` is called in the thread that runs.

    `command` starts a child that speaks process.py's protocol; `restarts` makes each place's restart policy.
    """

    def __init__(
        self,
        broker_url: str,
        groups: Sequence[ChildPlan],
        on_event: Callable[[Event], None],
        settings: FleetSettings = FleetSettings(),  # noqa: B008 (a frozen value)
        *,
        command: Sequence[str] = COMMAND,
        restarts: Callable[[], Restarts] = Restarts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_url(broker_url)
        host = host_name()
        self._slots = [Slot(plan, f"{host}-{os.getpid()}", host, restarts()) for plan in _checked(groups)]
        self._pools = sorted({plan.pool for plan in groups})
        self._common = {
            "broker": broker_url,
            "max_deliveries": settings.max_deliveries,
            "reply_ttl_s": settings.reply_ttl_s,
            "lazy": settings.lazy,
            "memory_budget": settings.memory_budget,
            "log_level": settings.log_level,
            "log_format": settings.log_format,
            "tracing": settings.tracing,
            "metrics": settings.metrics,
        }
        self._on_event = on_event
        self._drain_s = settings.drain_s
        self._command = command
        self._clock = clock
        self._children: dict[Slot, Child] = {}
        self._mailbox: Mailbox[Event | Exception | Wish] = Mailbox()
        self._selector = selectors.DefaultSelector()
        self._wish = Wish.RUN
        self._deadline_s: float | None = None
        self._looked_s = clock()
        self._ready: list[Ready] = []
        # Three tries fit into a lease: one reply that does not come must not end it.
        try_s = settings.lease_s / 3
        opened = partial(connect, broker_url, socket_timeout_s=try_s)
        links = {pool: Link(pool, opened, settings.lease_ms, clock, settings.max_backlog) for pool in self._pools}
        self._heartbeat = Heartbeat(links, min(RENEW_S, try_s), self._mailbox.post)

    @property
    def slots(self) -> Sequence[Slot]:
        """The places of its children, to be looked at from any thread."""
        return tuple(self._slots)

    def stop(self) -> None:
        """Drain: children finish what they run and hand back the rest, then `run` returns. From any thread."""
        self._mailbox.post(Wish.DRAIN)

    def kill(self) -> None:
        """End all children at once, then `run` returns. What they ran is given to other workers. From any thread."""
        self._mailbox.post(Wish.KILL)

    def abort(self, error: Exception) -> None:
        """End all children at once, then `run` raises `error`. From any thread."""
        self._mailbox.post(error)

    def run(self) -> None:
        """Start the children and stay until stopped; once only.

        In the main thread SIGTERM and SIGINT drain, and a second one kills. Raises ConfigError where Redis is
        too old or lets nobody in, or where each child said that its configuration is wrong; and what `abort` was
        given. No child outlives this call.
        """
        set_title(f"supervisor {' '.join(self._pools)}")
        self._selector.register(self._mailbox, selectors.EVENT_READ, self._read_mail)
        self._heartbeat.start()
        with StopSignals(self.stop, self.kill, self._mailbox.wakeup_fd):
            try:
                while not all(slot.ended for slot in self._slots):
                    self._step()
            finally:
                self._close()
        if self._wish is Wish.RUN:
            raise ConfigError(next(slot.error for slot in self._slots) or "each child ended with a configuration error")

    def _step(self) -> None:
        """Wait until something happened, and take it in."""
        patience_s = self._patience_s()
        for key, _ in self._selector.select(patience_s):
            key.data()
        self._end_hung(patience_s or 0.0)
        self._bury()
        self._enforce_deadline()
        self._start_due()
        self._tell()

    def _patience_s(self) -> float | None:
        now = self._clock()
        waits = [slot.start_at_s - now for slot in self._slots if slot.waits]
        waits += [LOOK_S for child in self._children.values() if child.exit_fd is None]
        waits += [slot.hangs_at_s - now for slot in self._children if slot.hangs_at_s is not None]
        waits += [slot.look_at_s - now for slot in self._children if slot.look_at_s is not None]
        if self._deadline_s is not None:
            waits.append(self._deadline_s - now)
        return max(0.0, min(waits)) if waits else None

    def _read_mail(self) -> None:
        for item in self._mailbox.take():
            if isinstance(item, Wish):
                self._obey(item)
            elif isinstance(item, Exception):
                raise item
            else:
                self._on_event(item)
                if isinstance(item, Ordered):
                    self._pass_on(item.pool, item.order)

    def _pass_on(self, pool: str, order: Order) -> None:
        """An operator's order, to the pool's children; for those that are not there the answer is given here."""
        for slot in self._slots:
            if slot.plan.pool != pool or order.worker not in ("", slot.consumer):
                continue
            child = self._children.get(slot)
            if child is not None and slot.ordered(order):
                child.send({"do": "obey", "order": asdict(order)})
            else:
                report = slot.report(order, False, f"this worker is {slot.state}; give the order again when it runs")
                self._heartbeat.answer(pool, order, report)

    def _obeyed(self, slot: Slot, event: Obeyed) -> None:
        self._heartbeat.answer(event.pool, event.order, event.report)
        if event.report.ok and event.order.do in MODEL_VERBS:
            for other in self._slots:
                if other.plan.pool == event.pool and not other.holds_work:
                    # Its child was away, and is to come back with what the others offer.
                    other.serves = slot.serves

    def _obey(self, wish: Wish) -> None:
        if wish <= self._wish:
            return
        self._wish = wish
        for slot in self._slots:
            if slot.waits:
                slot.end()
        if wish is Wish.DRAIN:
            self._drain()
        else:
            self._kill()

    def _drain(self) -> None:
        self._deadline_s = self._clock() + self._drain_s
        until_ms = int((time.time() + self._drain_s) * 1000)
        for slot, child in self._children.items():
            if slot.holds_work:
                child.send({"do": "drain"})
                slot.draining(until_ms)
            else:
                child.kill()
        self._on_event(Draining(sum(slot.holds_work for slot in self._slots), self._drain_s))

    def _enforce_deadline(self) -> None:
        if self._deadline_s is not None and self._clock() >= self._deadline_s:
            self._deadline_s = None
            self._kill()

    def _kill(self) -> None:
        for child in self._children.values():
            child.kill()

    def _end_hung(self, patience_s: float) -> None:
        """A child that hangs is killed: what it ran is then taken over, and it starts again."""
        now_s = self._clock()
        if now_s - self._looked_s > patience_s + OVERSLEPT_S:
            for slot in self._children:
                slot.forgive(now_s)
        self._looked_s = now_s
        for slot, child in self._children.items():
            if slot.look_at_s is not None and now_s >= slot.look_at_s:
                slot.saw(child.sight(), now_s)
            if slot.hangs(now_s):
                child.kill()

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.waits and slot.start_at_s <= self._clock():
                self._start(slot)

    def _start(self, slot: Slot) -> None:
        try:
            child = start(self._command, slot.plan.placement, slot.config(self._common), os.environ)
        except OSError as error:
            reason = f"could not be started: {error}"
            self._on_event(slot.exited(NOT_STARTED, reason, self._clock(), self._wish is not Wish.RUN))
            return
        self._children[slot] = child
        self._selector.register(child.status_fd, selectors.EVENT_READ, partial(self._listen, slot, child))
        if child.exit_fd is not None:
            self._selector.register(child.exit_fd, selectors.EVENT_READ, _awake)
        self._on_event(slot.started(child.pid, self._clock(), int(time.time() * 1000)))

    def _listen(self, slot: Slot, child: Child) -> None:
        told: list[Obeyed] = []
        for line in child.read():
            event = slot.heard(line, self._clock(), int(time.time() * 1000))
            if isinstance(event, Ready):
                # Said when Redis knows it too.
                self._ready.append(event)
            elif event is not None:
                self._on_event(event)
            if isinstance(event, Obeyed):
                told.append(event)
        if told:
            # What his order has changed is published before the operator hears of it.
            self._tell()
        for event in told:
            self._obeyed(slot, event)
        if not child.talks:
            self._selector.unregister(child.status_fd)

    def _bury(self) -> None:
        for slot, child in list(self._children.items()):
            code = child.poll()
            if code is not None:
                self._listen_to_the_end(slot, child)
                del self._children[slot]
                self._on_event(slot.exited(code, "", self._clock(), self._wish is not Wish.RUN))

    def _listen_to_the_end(self, slot: Slot, child: Child) -> None:
        """Its last lines, which may say why it ended. A process of its own may hold the pipe open still."""
        if child.talks:
            self._listen(slot, child)
        if child.talks:
            self._selector.unregister(child.status_fd)
        if child.exit_fd is not None:
            self._selector.unregister(child.exit_fd)
        child.close()

    def _tell(self) -> None:
        ready, self._ready = self._ready, []
        self._heartbeat.tell({pool: self._presence(pool) for pool in self._pools}, ready)

    def _presence(self, pool: str) -> Presence:
        slots = [slot for slot in self._slots if slot.plan.pool == pool and not slot.ended]
        return Presence(
            {slot.consumer: slot.description() for slot in slots},
            {name: data for slot in slots for name, data in slot.models.items()},
            any(slot.holds_work for slot in slots),
            self._unused(pool),
        )

    def _unused(self, pool: str) -> frozenset[str]:
        return frozenset(slot.unused for slot in self._slots if slot.plan.pool == pool and slot.unused is not None)

    def _close(self) -> None:
        """Whatever ended the loop: no child stays, and no lease."""
        self._kill()
        for child in self._children.values():
            child.close()
        self._heartbeat.tell({pool: Presence(unused=self._unused(pool)) for pool in self._pools})
        self._heartbeat.close(FAREWELL_S)
        self._selector.close()
        self._mailbox.close()


def _checked(groups: Sequence[ChildPlan]) -> Sequence[ChildPlan]:
    """Two children with one index would share a consumer name, and with it their work."""
    indexes = [plan.placement.index for plan in groups]
    if not groups or len(set(indexes)) != len(indexes):
        raise ConfigError(f"a supervisor needs one or more children, each with an index of its own; got {indexes}")
    return groups


def _awake() -> None:
    """The exit itself is seen by `_bury`, which looks at every child."""
