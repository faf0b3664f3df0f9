"""A pool without workers, removed from Redis: a mistyped one, or one that was given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.broker import Broker
from common.errors import ConfigError
from common.scripts import Forgotten
from gateway.admin.pools import Admin

if TYPE_CHECKING:
    import redis


def forget(client: redis.Redis, pool: str, force: bool = False) -> Forgotten:
    """Remove all that is kept of a pool: streams, limits, aliases, splits; with `force` also unfinished work.

    Gives what it held. Raises ConfigError where it is not known, has live workers, or would lose work; then all stays.
    """
    known = Admin(client).pools()
    if pool not in known:
        raise ConfigError(f"no pool '{pool}' was ever started on this broker; there is {', '.join(known) or 'none'}")
    found = Broker(client, pool).forget(force)
    if found.workers:
        raise ConfigError(f"pool '{pool}' has {found.workers} live workers; stop them first")
    if not found.done:
        raise ConfigError(
            f"pool '{pool}' has {found.unfinished} unfinished requests and {found.letters} dead letters; "
            "they are lost with --force"
        )
    return found
