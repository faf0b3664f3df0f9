"""What a supervisor tells whoever watches it: small values, to be printed as lines or drawn as progress."""

from __future__ import annotations

from dataclasses import dataclass

from common.memory import Memory
from common.orders import Order, Report


@dataclass(frozen=True, slots=True)
class Started:
    """A child process was started. `worker` is its place's index, in all events."""

    worker: int
    pool: str
    device: str
    pid: int


@dataclass(frozen=True, slots=True)
class Loading:
    """A child loads `model`; `done` of its `of` models are loaded."""

    worker: int
    model: str
    done: int
    of: int


@dataclass(frozen=True, slots=True)
class Ready:
    """A child takes work, and Redis knows of it. Seconds for its imports, its weights, and its warm-up."""

    worker: int
    pool: str
    models: tuple[str, ...]
    import_s: float
    load_s: float
    warm_s: float


@dataclass(frozen=True, slots=True)
class Exited:
    """A child ended: negative `code`s are signals. `will_restart_in_s` is None where it will not be started again.

    `error` is what the child itself said of it, or empty; `looping`: five crashes in a row, never ready.
    """

    worker: int
    pool: str
    code: int
    error: str
    will_restart_in_s: float | None
    looping: bool


@dataclass(frozen=True, slots=True)
class Ordered:
    """An operator's order to a pool has come; its children get it."""

    pool: str
    order: Order


@dataclass(frozen=True, slots=True)
class Obeyed:
    """A child has obeyed `order`, or says in its report why not."""

    worker: int
    pool: str
    order: Order
    report: Report


@dataclass(frozen=True, slots=True)
class Draining:
    """No more work is taken; `children` finish what they run, within `within_s` seconds."""

    children: int
    within_s: float


@dataclass(frozen=True, slots=True)
class BrokerLost:
    """Redis does not answer for this pool, or lets nobody in. Said once of each: it is tried again each second."""

    pool: str
    error: str


@dataclass(frozen=True, slots=True)
class BrokerBack:
    """Redis answers again, and leases, workers and models are there again."""

    pool: str
    away_s: float


@dataclass(frozen=True, slots=True)
class BrokerFull:
    """Redis refuses new requests to this pool, or soon will. Said once of each, until there is room again."""

    pool: str
    memory: Memory


@dataclass(frozen=True, slots=True)
class BrokerHasRoom:
    """Redis was full, and takes new requests again."""

    pool: str
    memory: Memory


@dataclass(frozen=True, slots=True)
class BrokerForgot:
    """Redis was emptied, or is another one; what operators had set is `gone` with it, and nobody sets it again."""

    pool: str
    gone: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that works, but will hurt."""

    text: str


Event = (
    Started
    | Loading
    | Ready
    | Exited
    | Ordered
    | Obeyed
    | Draining
    | BrokerLost
    | BrokerBack
    | BrokerForgot
    | BrokerFull
    | BrokerHasRoom
    | Warned
)
