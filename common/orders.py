"""What an operator tells a pool's workers at run time, and what each of them answers: values and their one encoding."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from common.errors import InvalidRequest
from common.names import check_id, check_name, shorten
from common.wire import pack, unpack_map

LOAD, UNLOAD, RELOAD = VERBS = ("load", "unload", "reload")

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
    one that is found more than `timeout_ms` after it was given is obeyed no more.
    """

    id: str
    do: str
    model: str
    version: str | None = None
    swap: bool = False
    timeout_ms: int = 60_000
    inbox: str = ""


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


def label_of(name: str, version: str | None) -> str:
    """`name:version`, or the name alone."""
    return name if version is None else f"{name}:{version}"


def encode(message: Order | Report) -> bytes:
    return pack(asdict(message))


def decode_order(data: bytes) -> Order:
    """Raises InvalidRequest for what is no order that this version knows."""
    order = _decode(Order, data)
    if order.do not in VERBS:
        raise InvalidRequest(f"an order must be one of {', '.join(VERBS)}; got {shorten(order.do)}")
    check_id(order.id)
    check_name("model", order.model)
    if order.version is not None:
        check_name("version", order.version)
    return order


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
