"""What an operator tells a pool's workers at run time, and what each of them answers: values and their one encoding."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from common.errors import InvalidRequest
from common.logs import LEVELS
from common.names import check_id, check_name, shorten
from common.versions import label_of
from common.wire import pack, unpack_map

#: What is done with models, and what is asked of the process beside its work.
LOAD, UNLOAD, RELOAD = MODEL_VERBS = ("load", "unload", "reload")
LOG, PROFILE = ERRANDS = ("log", "profile")
VERBS = (*MODEL_VERBS, *ERRANDS)
#: A profile grows with every operation: no longer one is taken.
MAX_PROFILE_S = 600.0
_LOGGER = re.compile(r"[A-Za-z0-9_.-]{0,128}")

T = TypeVar("T", bound="Order | Report")

#: What a field's annotation admits on the wire.
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "tuple[str, ...]": (tuple,),
}


@dataclass(frozen=True, slots=True)
class Order:
    """`do` is one of VERBS; without a version it means every version of the model.

    `swap`: unload before loading, where memory does not take both. `id` names the answers, which go to `inbox`;
    one that is found more than `timeout_ms` after it was given is obeyed no more. With a `worker` it is for that one
    alone. `log` sets the `level` of `logger` (of all: ""), `profile` writes down what the process does for `seconds`.
    """

    id: str
    do: str
    model: str
    version: str | None = None
    swap: bool = False
    timeout_ms: int = 60_000
    inbox: str = ""
    worker: str = ""
    level: str = ""
    logger: str = ""
    seconds: float = 0.0

    @property
    def what(self) -> str:
        """What is ordered, in a few words."""
        if self.do in MODEL_VERBS:
            return f"{self.do} model '{label_of(self.model, self.version)}'"
        if self.do == LOG:
            return f"log {self.logger or 'all'} from {self.level} on"
        return f"profile for {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of an order in one worker process. `models` are those that it changed, as `name:version`.

    `seconds` is the time that it took there, `memory` the bytes of the process after it. `note`: what an operator
    should know though it went well.
    """

    order: str
    worker: str
    host: str
    index: int
    ok: bool
    error: str = ""
    models: tuple[str, ...] = ()
    seconds: float = 0.0
    memory: int = 0
    note: str = ""


def encode(message: Order | Report) -> bytes:
    return pack(asdict(message))


def decode_order(data: bytes) -> Order:
    """Raises InvalidRequest for what is no order that this version knows."""
    order = _decode(Order, data)
    if order.do not in VERBS:
        raise InvalidRequest(f"an order must be one of {', '.join(VERBS)}; got {shorten(order.do)}")
    check_id(order.id)
    if order.worker:
        check_name("worker", order.worker)
    if order.do in MODEL_VERBS:
        check_name("model", order.model)
        if order.version is not None:
            check_name("version", order.version)
    elif order.do == LOG:
        check_log(order.level, order.logger)
    else:
        check_seconds(order.seconds)
    return order


def check_log(level: str, logger: str) -> None:
    """Raises InvalidRequest for what is no level, or no logger's name."""
    if level not in LEVELS:
        raise InvalidRequest(f"a log level must be one of {', '.join(LEVELS)}; got {shorten(level)}")
    if not _LOGGER.fullmatch(logger):
        raise InvalidRequest(f"a logger's name is up to 128 letters, digits, '.', '_' or '-'; got {shorten(logger)}")


def check_seconds(seconds: float) -> None:
    """Raises InvalidRequest for a profile that would be none, or too long."""
    if not 0 < seconds <= MAX_PROFILE_S:
        raise InvalidRequest(f"a profile takes over 0 and at most {MAX_PROFILE_S:g} s; got {seconds:g}")


def decode_report(data: bytes) -> Report:
    """Raises InvalidRequest."""
    return _decode(Report, data)


def _decode(kind: type[T], data: bytes) -> T:
    message: dict[str, Any] = unpack_map(f"the {kind.__name__.lower()}", data)
    known = {field.name for field in fields(kind)}
    try:
        # Fields of a newer peer are passed over.
        known_fields: dict[str, Any] = {name: _tuple(value) for name, value in message.items() if name in known}
        decoded = kind(**known_fields)
    except TypeError as error:
        raise InvalidRequest(f"the {kind.__name__.lower()} is malformed: {error}") from error
    for field in fields(kind):
        _check_kind(f"the {kind.__name__.lower()}'s {field.name}", field.type, getattr(decoded, field.name))
    return decoded


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _check_kind(what: str, kind: Any, value: object) -> None:
    wanted = _KINDS[kind]
    sound = isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool))
    if isinstance(value, float):
        sound = sound and math.isfinite(value)
    if not sound or (isinstance(value, tuple) and not all(isinstance(one, str) for one in value)):
        raise InvalidRequest(f"{what} must be {kind}; got {shorten(value)}")
