"""What an operator allows a pool and its tenants: read, set, taken back. It holds from the next submit on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from common.broker import Broker
from common.limits import POOL_FIELDS, PoolLimits, TenantLimits, read_limits, tenant_field

if TYPE_CHECKING:
    import redis


class Limits:
    """Those of one pool. Every method raises BrokerUnavailable where Redis does not answer."""

    def __init__(self, client: redis.Redis, pool: str) -> None:
        self._broker = Broker(client, pool)

    def read(self) -> PoolLimits:
        return read_limits(self._broker.limits())

    def set_pool(self, **values: float) -> None:
        """Fields of PoolLimits, for all tenants without their own. Those that are not named stay."""
        self._broker.change_limits({POOL_FIELDS[name]: value for name, value in values.items()})

    def set_tenant(self, tenant: str, **values: Any) -> TenantLimits:
        """Fields of TenantLimits; those that are not named stay. Of two operators at once, the later one's hold."""
        changed = replace(self.read().tenants.get(tenant, TenantLimits()), **values)
        self._broker.change_limits({tenant_field(tenant): changed.encode()})
        return changed

    def clear(self, tenant: str | None = None) -> None:
        """What was set for the tenant, or for the pool and not for one tenant, holds no more."""
        self._broker.clear_limits([tenant_field(tenant)] if tenant is not None else list(POOL_FIELDS.values()))
