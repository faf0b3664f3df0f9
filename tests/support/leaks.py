"""What a pool leaves in Redis: nothing without a TTL but the keys that common/keys.py calls permanent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.keys import PoolKeys

if TYPE_CHECKING:
    import redis


def keys_of(client: redis.Redis, pool: str) -> set[str]:
    """All keys of the pool that exist now."""
    return {key.decode() for key in client.scan_iter(match=f"iw:{{{pool}}}:*", count=1000)}


def permanent_keys(pool: str) -> set[str]:
    keys = PoolKeys(pool)
    return {*keys.streams, keys.dead, keys.tenants, keys.lanes, keys.limits, keys.traffic, keys.unloaded, keys.leases}


def leaked_keys(client: redis.Redis, pool: str) -> list[str]:
    """The pool's keys that would stay for ever: without a TTL, and not permanent."""
    suspects = sorted(keys_of(client, pool) - permanent_keys(pool))
    return [key for key in suspects if client.ttl(key) == -1]
