"""Every Redis key: its name, its type and how long it lives. Nothing else in the project spells one.

All keys of a pool share the hash slot of `{pool}`, so that each operation is one script.
"""

from __future__ import annotations

from common.errors import InvalidRequest
from common.names import check_name, check_pool, is_id, shorten

PRIORITIES = ("high", "normal", "low")
#: Each priority has an ordinary lane and so many bulk lanes, for what tenants with a backlog send: a stream each.
#: A stream's number is its priority's, in the first bulk lane three more, in the second six more, and so on.
BULK_LANES = 4
_LANES = ("", ":bulk", *(f":bulk:{lane}" for lane in range(2, BULK_LANES + 1)))
GROUP = "workers"
#: Where a request goes that no routing rule takes, and a model that names no pool.
DEFAULT_POOL = "default-pool"
#: The consumer that holds what a draining worker handed back. It never has a live lease.
RELEASED = "released"
#: Plain set of the pools ever started on this broker; not in a pool's slot, touched by plain commands only.
POOLS = "iw:pools"
#: Hash of the doors' API keys (hashed) and tenants; permanent, touched by plain commands only.
ACCESS = "iw:access"
_JOB = "iw:job:"
#: Sorted set of the score jobs that were seen last, by name; kept for a week after the last one.
SCORE_JOBS = "iw:{score}:jobs"


def job_key(job_id: str) -> str:
    """String with a TTL: which request in which pool a door's job is."""
    return _JOB + job_id


class ScoreKeys:
    """The keys of one score job, whose processes share its shards. Touched by plain commands and two one-line scripts.

    | key             | type   | lives                                                      |
    | --------------- | ------ | ---------------------------------------------------------- |
    | `job`           | hash   | a day after a process of the job was last seen             |
    | `lease:<shard>` | string | while its holder renews it; the value is the holder's token |
    """

    __slots__ = ("_lease", "job", "name")

    def __init__(self, name: str) -> None:
        self.name = check_name("a job's name", name)
        # No pool has a name with a colon; and an operator's patterns for pools take these, too.
        prefix = f"iw:{{score:{name}}}:"
        self.job = prefix + "job"
        self._lease = prefix + "lease:"

    def lease(self, shard: str) -> str:
        return self._lease + shard


def priority_of(stream: int) -> int:
    """The number of the priority that a stream belongs to."""
    return stream % len(PRIORITIES)


def is_bulk(stream: int) -> bool:
    return stream >= len(PRIORITIES)


class PoolKeys:
    """The keys of one pool.

    | key                    | type   | lives                                              |
    | ---------------------- | ------ | -------------------------------------------------- |
    | `high` `normal` `low`  | stream | always; its length is the unfinished work          |
    | `high:bulk` ...        | stream | the same, of tenants that have a backlog           |
    | `high:bulk:2` ... `:4` | stream | the same, of other such tenants                    |
    | `reply:<id>`           | string | reply TTL, or the model's cache TTL                |
    | `waiters:<id>`         | string | while in flight; TTL of the longest waiting client |
    | `payload:<id>`         | string | while in flight, with a TTL                        |
    | `inbox:<client>`       | list   | 60 s after the last push                           |
    | `cancelled`            | set    | an hour after the last mark                        |
    | `tenants`              | hash   | always (bookkeeping); a count of 0 is removed      |
    | `lanes`                | zset   | always (bookkeeping); an idle tenant is removed    |
    | `limits`               | hash   | always (bookkeeping, of operators and workers)     |
    | `rates`                | zset   | until the last token bucket is full again          |
    | `traffic`              | hash   | always (bookkeeping, written by the operator)      |
    | `unloaded`             | hash   | until the operator loads it again (bookkeeping)    |
    | `leases`               | zset   | always (bookkeeping); dead workers are removed     |
    | `workers` `models`     | hash   | 60 s after the last worker renewed                 |
    | `control`              | stream | an hour after the operator's last order            |
    | `dead`                 | stream | always; capped to about 100,000 letters            |

    `waiters:<id>` holds `<place> <inbox> <inbox> ...`: which entry computes this id and who waits for
    it. One string takes one SET where a set takes SADD and PEXPIRE, and a batch is read by one MGET.
    A place is `<stream 1-15>:<entry id>`, since two streams may use the same entry id.

    The streams, `tenants` and `lanes` have a TTL, that of the longest waiting client, until the first worker comes: a
    mistyped pool leaves nothing behind.
    """

    __slots__ = (
        "_numbers",
        "_payload",
        "_reply",
        "_waiters",
        "cancelled",
        "control",
        "dead",
        "inbox_prefix",
        "lanes",
        "leases",
        "limits",
        "models",
        "pool",
        "rates",
        "streams",
        "tenants",
        "traffic",
        "unloaded",
        "workers",
    )

    def __init__(self, pool: str) -> None:
        self.pool = check_pool(pool)
        prefix = f"iw:{{{pool}}}:"
        self.streams = tuple(prefix + priority + lane for lane in _LANES for priority in PRIORITIES)
        self._numbers = {stream.encode(): number for number, stream in enumerate(self.streams)}
        self._reply = prefix + "reply:"
        self._waiters = prefix + "waiters:"
        self._payload = prefix + "payload:"
        self.inbox_prefix = prefix + "inbox:"
        self.leases = prefix + "leases"
        self.workers = prefix + "workers"
        self.models = prefix + "models"
        self.tenants = prefix + "tenants"
        self.lanes = prefix + "lanes"
        self.limits = prefix + "limits"
        self.rates = prefix + "rates"
        self.traffic = prefix + "traffic"
        self.unloaded = prefix + "unloaded"
        self.cancelled = prefix + "cancelled"
        self.control = prefix + "control"
        self.dead = prefix + "dead"

    @property
    def bookkeeping(self) -> tuple[str, ...]:
        """What a pool keeps beside its streams, dead letters and leases: one key each."""
        counted = (self.tenants, self.lanes, self.limits, self.rates)
        return (self.workers, self.models, *counted, self.traffic, self.unloaded, self.cancelled, self.control)

    def number_of(self, stream: bytes) -> int:
        """A stream's number by its name, as Redis gives it."""
        return self._numbers[stream]

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
        request_id = key[len(self._payload) :]
        return request_id if key.startswith(self._payload) and is_id(request_id) else None

    def check_inbox(self, key: str) -> str:
        """`key` if it is an inbox of this pool. Raises InvalidRequest: `complete` pushes nowhere else."""
        if not key.startswith(self.inbox_prefix):
            raise InvalidRequest(f"reply_to must start with '{self.inbox_prefix}'; got {shorten(key)}")
        check_name("reply_to's client", key[len(self.inbox_prefix) :])
        return key

    def __repr__(self) -> str:
        return f"PoolKeys({self.pool!r})"
