"""One place for a child, through all its restarts: state, names, and what its status lines and its end mean. Pure."""

from __future__ import annotations

import base64
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgpack

from common.orders import Order, Report
from inference_worker.processes.exitcodes import Exit
from inference_worker.supervision.events import Exited, Loading, Obeyed, Ready, Started
from inference_worker.supervision.placement import Placement
from inference_worker.supervision.restarts import Restarts
from inference_worker.supervision.watchdog import Sight, Watchdog


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """What one child serves, and where: the models found under `paths` that belong to `models_pool` (None: all)."""

    pool: str
    paths: tuple[str, ...]
    placement: Placement
    models_pool: str | None = None


class State(StrEnum):
    """A slot's state, in the words that `status` prints."""

    WAITING = "waiting to start"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    LOOPING = "crash looping"
    FENCED = "fenced off"
    ENDED = "ended"


@dataclass(slots=True)
class Life:
    """What is known of one generation of the child, from its start to its end. Times in ms are the wall clock's."""

    pid: int
    started_s: float
    started_ms: int
    heard_ms: int
    was_ready: bool = False
    loading: str = ""
    error: str = ""
    watchdog: Watchdog | None = field(default_factory=Watchdog)
    drains_until_ms: int = 0
    models: dict[str, bytes] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)

    def last_words(self, code: int, stopping: bool) -> str:
        """Why it ended: by its own word, else what it was last known to do. Nothing where we have ended it."""
        if self.error or stopping or code == 0:
            return self.error
        killed = "killed from outside, as the system does for want of memory" if code == -signal.SIGKILL else ""
        return ", ".join(filter(None, (killed, self._doing)))

    @property
    def _doing(self) -> str:
        if self.loading:
            return f"while it loaded '{self.loading}'"
        running = self.stats.get("running")
        return f"last heard of when it ran '{running}'" if running else ""


class Slot:
    """Its consumer name changes with each generation: what a dead child held is for others to reclaim."""

    def __init__(self, plan: ChildPlan, owner: str, host: str, restarts: Restarts) -> None:
        self.plan = plan
        self._owner = owner
        self._host = host
        self._restarts = restarts
        self._generation = 0
        self._life: Life | None = None
        self._state = State.WAITING
        self.start_at_s = 0.0
        self.error = ""
        #: What the next child is to offer, as `name:version`; None: all that is declared.
        self.serves: list[str] | None = None
        #: The consumer name of its last child, if that ended before it took any work.
        self.unused: str | None = None

    @property
    def index(self) -> int:
        return self.plan.placement.index

    @property
    def state(self) -> State:
        unready = self._state in (State.WAITING, State.STARTING, State.LOADING)
        return State.LOOPING if unready and self._restarts.looping else self._state

    @property
    def waits(self) -> bool:
        """It has no child, and `start_at_s` is when to start the next."""
        return self._state in (State.WAITING, State.FENCED)

    @property
    def holds_work(self) -> bool:
        """Its child has been told to take work, so it must be drained rather than ended."""
        return self._life is not None and self._life.was_ready

    @property
    def ended(self) -> bool:
        return self._state is State.ENDED

    @property
    def consumer(self) -> str:
        """The name under which the child takes work; that of the next child while there is none."""
        return f"{self._owner}-{self.index}-{self._generation}"

    @property
    def models(self) -> Mapping[str, bytes]:
        """`name:version` -> metadata of what its child serves now."""
        return self._life.models if self._life else {}

    @property
    def told(self) -> Mapping[str, Any]:
        """What its child said last of itself (worker.Counts); nothing while there is none. From any thread."""
        life = self._life
        return life.stats if life else {}

    def config(self, common: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration line of the next child."""
        placement = self.plan.placement
        return {
            **common,
            "metrics": self._metrics(common.get("metrics")),
            "pool": self.plan.pool,
            "consumer": self.consumer,
            "paths": list(self.plan.paths),
            "device": placement.inner_device,
            "threads": placement.threads,
            "models_pool": self.plan.models_pool,
            "siblings": placement.siblings,
            "seat": placement.seat,
            "serves": self.serves,
        }

    def _metrics(self, folder: str | None) -> str | None:
        """The file of this place, whoever holds it: the next child counts on from where the last one died."""
        return None if folder is None else f"{folder}/worker-{self.index}"

    def started(self, pid: int, now_s: float, wall_ms: int) -> Started:
        self._life = Life(pid, now_s, wall_ms, wall_ms)
        self._state = State.STARTING
        return Started(self.index, self.plan.pool, self.plan.placement.device, pid)

    def heard(self, message: Mapping[str, Any], now_s: float, wall_ms: int) -> Loading | Ready | Obeyed | None:
        """Take in a status line. Kinds that are not known are passed over."""
        life = self._life
        if life is None:
            return None
        life.heard_ms = wall_ms
        if life.watchdog:
            life.watchdog.heard(message, now_s)
        match message:
            case {"is": "loading", "model": model, "done": done, "of": of}:
                self._state = State.LOADING
                life.loading = model
                return Loading(self.index, model, done, of)
            case {"is": "ready", "models": models}:
                return self._ready(life, models, message)
            case {"is": "models", "models": models}:
                self._offers(life, models)
            case {"is": "obeyed", "order": order, **facts} if order in life.orders:
                return self._obeyed(life.orders.pop(order), facts)
            case {"is": "failed", "error": error}:
                life.error = str(error)
            case {"is": "stats" | "busy"}:
                life.stats.update({name: value for name, value in message.items() if name != "is"})
        return None

    def _ready(self, life: Life, models: Mapping[str, str], message: Mapping[str, Any]) -> Ready:
        self._offers(life, models)
        life.was_ready = True
        life.loading = ""
        self._state = State.READY
        seconds = (float(message.get(name, 0)) for name in ("import_s", "load_s", "warm_s"))
        return Ready(self.index, self.plan.pool, tuple(life.models), *seconds)

    def _offers(self, life: Life, models: Mapping[str, str]) -> None:
        life.models = {name: base64.b64decode(data) for name, data in models.items()}
        self.serves = sorted(life.models)

    def ordered(self, order: Order) -> bool:
        """Whether its child is there to obey; `heard` then tells what became of it."""
        if self._life is None or self._state is State.DRAINING:
            return False
        self._life.orders[order.id] = order
        return True

    def _obeyed(self, order: Order, facts: Mapping[str, Any]) -> Obeyed:
        done = tuple(facts["models"]), float(facts["seconds"]), int(facts["memory"]), str(facts.get("note", ""))
        return Obeyed(
            self.index,
            self.plan.pool,
            order,
            self.report(order, bool(facts["ok"]), str(facts["error"]), *done),
        )

    def report(self, order: Order, ok: bool, error: str, *done: Any) -> Report:
        """For the operator. `done`: the models that were changed, seconds, bytes, a note."""
        return Report(order.id, self.consumer, self._host, self.index, ok, error, *done)

    @property
    def hangs_at_s(self) -> float | None:
        """When its child, where it stays silent, counts as one that hangs."""
        watchdog = self._life.watchdog if self._life else None
        return watchdog.bites_at_s if watchdog else None

    @property
    def look_at_s(self) -> float | None:
        """When to look at its child's process, where it stays silent."""
        watchdog = self._life.watchdog if self._life else None
        return watchdog.look_at_s if watchdog else None

    def saw(self, sight: Sight | None, now_s: float) -> None:
        """Its child's process, at a time when it was silent."""
        if self._life and self._life.watchdog:
            self._life.watchdog.saw(sight, now_s)

    def hangs(self, now_s: float) -> bool:
        """Whether its child must be killed; why is told when it has ended. True once."""
        life = self._life
        if life is None or life.watchdog is None or not (why := life.watchdog.bites(now_s)):
            return False
        life.error, life.watchdog = why, None
        return True

    def forgive(self, now_s: float) -> None:
        """Nobody could listen until now."""
        if self._life and self._life.watchdog:
            self._life.watchdog.forgive(now_s)

    def draining(self, until_ms: int) -> None:
        """From now on the drain's own deadline rules: `until_ms`, by the wall clock."""
        self._state = State.DRAINING
        if self._life:
            self._life.watchdog = None
            self._life.drains_until_ms = until_ms

    def exited(self, code: int, error: str, now_s: float, stopping: bool) -> Exited:
        """Its child ended, or (with an `error`) did not start at all."""
        life, self._life = self._life, None
        self.unused = None if life and life.was_ready else self.consumer
        self._generation += 1
        self.error = error or (life.last_words(code, stopping) if life else "")
        ran_s = now_s - life.started_s if life else 0.0
        wait_s = None if stopping else self._restarts.ended(code, ran_s, life is not None and life.was_ready)
        if wait_s is None:
            self.end()
        else:
            self._state = State.FENCED if code == Exit.UNAVAILABLE else State.WAITING
            self.start_at_s = now_s + wait_s
        return Exited(self.index, self.plan.pool, code, self.error, wait_s, self._restarts.looping)

    def end(self) -> None:
        """No child is started here any more."""
        self._state = State.ENDED

    def description(self) -> bytes:
        """What `status` shows of this slot. One that computes for long, or hangs, shows in an old `heard_ms`."""
        life = self._life
        return bytes(
            msgpack.packb(
                {
                    "host": self._host,
                    "pid": life.pid if life else 0,
                    "device": self.plan.placement.device,
                    "index": self.index,
                    "state": self.state.value,
                    "started_ms": life.started_ms if life else 0,
                    "heard_ms": life.heard_ms if life else 0,
                    "drains_until_ms": life.drains_until_ms if life else 0,
                    "models": sorted(self.models),
                    "batches": 0,
                    "rows": 0,
                    "restarts": self._restarts.count,
                    "error": self.error,
                    **(life.stats if life else {}),
                }
            )
        )
