"""A pool's limits as operators set them: their names, and the form in which submit reads them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from common.names import check_name
from common.scripts import DEFAULT_BACKLOG, DEFAULT_LIGHT, DEFAULT_TENANT

_TENANT = "tenant:"
_UNSET = "-"


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What holds for one tenant instead of the pool's own limits; None is what the pool says.

    `weight`: with `light` times so many unfinished requests it goes on in a bulk lane, and has so many parts of what
    such tenants share; 1 where nothing is said. `in_flight` bounds its unfinished requests. `rate`: requests a second,
    of which `burst` may come at once.
    """

    weight: float | None = None
    in_flight: int | None = None
    rate: float | None = None
    burst: float | None = None

    def encode(self) -> str:
        """`<weight> <in flight> <rate> <burst>`, each a number or `-`."""
        return " ".join(map(_text, (self.weight, self.in_flight, self.rate, self.burst)))


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """`in_flight`, `rate` and `burst` hold for each tenant without its own; None is no bound.

    `backlog` bounds the unfinished requests of all, `bytes` theirs, and `light` is where a tenant's backlog begins.
    """

    backlog: int = DEFAULT_BACKLOG
    bytes: int | None = None
    in_flight: int = DEFAULT_TENANT
    light: int = DEFAULT_LIGHT
    rate: float | None = None
    burst: float | None = None
    tenants: Mapping[str, TenantLimits] = field(default_factory=dict)


#: The pool's limits by the names of their fields in Redis.
POOL_FIELDS = {
    "backlog": "backlog",
    "bytes": "bytes",
    "in_flight": "tenant",
    "light": "light",
    "rate": "rate",
    "burst": "burst",
}


def tenant_field(tenant: str) -> str:
    """Raises InvalidRequest for what is no tenant's name."""
    return _TENANT + check_name("tenant", tenant)


def read_limits(fields: Mapping[str, bytes]) -> PoolLimits:
    """The hash's fields; what cannot be read is left out."""
    pool = {
        name: _number(fields[field].decode(errors="replace")) for name, field in POOL_FIELDS.items() if field in fields
    }
    tenants = {
        name.removeprefix(_TENANT): _tenant(value.decode(errors="replace"))
        for name, value in fields.items()
        if name.startswith(_TENANT)
    }
    known = {name: number for name, number in pool.items() if number is not None}
    return PoolLimits(**known, tenants=tenants)  # type: ignore[arg-type]


def limits_to_json(limits: PoolLimits) -> dict[str, object]:
    return asdict(limits)


def _tenant(text: str) -> TenantLimits:
    values = [_number(one) for one in text.split(" ")]
    return TenantLimits(*values) if len(values) == 4 else TenantLimits()  # type: ignore[arg-type]


def _number(text: str) -> int | float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else number


def _text(value: float | None) -> str:
    return _UNSET if value is None else f"{value:.15g}"
