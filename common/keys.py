"""Every Redis key: its name, its type and how long it lives. Nothing else in the project spells one.

All keys of a pool share the hash slot of `{pool}`, so that each operation is one script.
"""

from __future__ import annotations

from common.errors import InvalidRequest
from common.names import check_name, check_pool, shorten

PRIORITIES = ("high", "normal", "low")
GROUP = "workers"
#: Where a request goes that no routing rule takes, and a model that names no pool.
DEFAULT_POOL = "default-pool"
#: The consumer that holds what a draining worker handed back. It never has a live lease.
RELEASED = "released"
#: Plain set of the pools ever started on this broker; not in a pool's slot, touched by plain commands only.
POOLS = "iw:pools"


class PoolKeys:
    """The keys of one pool.

    | key                    | type   | lives                                              |
    | ---------------------- | ------ | -------------------------------------------------- |
    | `high` `normal` `low`  | stream | always; its length is the unfinished work          |
    | `reply:<id>`           | string | reply TTL, or the model's cache TTL                |
    | `waiters:<id>`         | string | while in flight; TTL of the longest waiting client |
    | `payload:<id>`         | string | while in flight, with a TTL                        |
    | `inbox:<client>`       | list   | 60 s after the last push                           |
    | `cancelled`            | set    | an hour after the last mark                        |
    | `tenants`              | hash   | always (bookkeeping); a count of 0 is removed      |
    | `limits`               | hash   | always (bookkeeping, written by the operator)      |
    | `leases`               | zset   | always (bookkeeping); dead workers are removed     |
    | `workers` `models`     | hash   | 60 s after the last worker renewed                 |
    | `dead`                 | stream | always; capped to about 100,000 letters            |

    `waiters:<id>` holds `<place> <inbox> <inbox> ...`: which entry computes this id and who waits for
    it. One string takes one SET where a set takes SADD and PEXPIRE, and a batch is read by one MGET.
    A place is `<stream 1-3>:<entry id>`, since two streams may use the same entry id.
    """

    __slots__ = (
        "_payload",
        "_reply",
        "_waiters",
        "cancelled",
        "dead",
        "inbox_prefix",
        "leases",
        "limits",
        "models",
        "pool",
        "streams",
        "tenants",
        "workers",
    )

    def __init__(self, pool: str) -> None:
        self.pool = check_pool(pool)
        prefix = f"iw:{{{pool}}}:"
        self.streams = tuple(prefix + priority for priority in PRIORITIES)
        self._reply = prefix + "reply:"
        self._waiters = prefix + "waiters:"
        self._payload = prefix + "payload:"
        self.inbox_prefix = prefix + "inbox:"
        self.leases = prefix + "leases"
        self.workers = prefix + "workers"
        self.models = prefix + "models"
        self.tenants = prefix + "tenants"
        self.limits = prefix + "limits"
        self.cancelled = prefix + "cancelled"
        self.dead = prefix + "dead"

    def reply(self, request_id: str) -> str:
        return self._reply + request_id

    def waiters(self, request_id: str) -> str:
        return self._waiters + request_id

    def payload(self, request_id: str) -> str:
        return self._payload + request_id

    def inbox(self, client: str) -> str:
        return self.inbox_prefix + client

    def id_of_payload(self, key: str) -> str | None:
        """The request id that a payload key of this pool was made for, or None for any other key."""
        return key[len(self._payload) :] if key.startswith(self._payload) else None

    def check_inbox(self, key: str) -> str:
        """`key` if it is an inbox of this pool. Raises InvalidRequest: `complete` pushes nowhere else."""
        if not key.startswith(self.inbox_prefix):
            raise InvalidRequest(f"reply_to must start with '{self.inbox_prefix}'; got {shorten(key)}")
        check_name("reply_to's client", key[len(self.inbox_prefix) :])
        return key

    def __repr__(self) -> str:
        return f"PoolKeys({self.pool!r})"
