"""From a broker URL to a Redis client: one server, Sentinel or Cluster, sync or asyncio. Nobody else imports redis.

redis is imported when the first connection is made: it takes longer to import than all of the client.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote

from common import credentials, tls
from common.brokerurl import check_url, database_of, hosts_of, kind_of, options_of, service_of
from common.errors import (
    AccessDenied,
    BrokerRefuses,
    BrokerUnavailable,
    InferenceError,
    InternalError,
)
from common.halfopen import tcp_options

if TYPE_CHECKING:
    import redis
    import redis.asyncio

#: A blocking read waits at most so long; its socket timeout is longer, or idle connections would be cut.
BLOCK_MS = 1000
CONNECT_TIMEOUT_S = 5.0
SOCKET_TIMEOUT_S = 10.0

# In front, as everywhere; of an error inside a script Redis 6.2 tells in the middle, some with a hyphen.
_ERROR_WORD = re.compile(r"(?:^|: -?)([A-Z]{3,})(?= |$)")
# What a command inside a script lacks a permission for has no word of its own: so say Redis 7 and later, and 6.2.
# And Redis 7 hears no long command of one who has not said who he is.
_DENIED = re.compile(r"\bACL failure in script\b|The user executing the script can't |unauthenticated (multi)?bulk")
# Where in which script it happened: 6.2 says so in front, once or twice, and 7 behind.
_SCRIPT = re.compile(
    r"^Error running script \(call to \w+\): (@user_script: ?\d+: )*|\.? script: \w+, on @user_script:\d+"
)
_PASSING = ("OOM", "MISCONF", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "UNBLOCKED", "BUSY", "READONLY", "LOADING")


def connect(url: str, socket_timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A client for `url`, thread-safe, connecting on first use. Raises ConfigError for a malformed URL.

    A reply that takes longer than `socket_timeout_s` is BrokerUnavailable.
    """
    import redis
    import redis.sentinel

    from common.lean import LeanRedis

    parts = check_url(url)
    options = {**_options(parts), **_timeouts(socket_timeout_s)}
    kind = kind_of(parts)
    if kind == "sentinel":
        sentinel = redis.sentinel.Sentinel(
            hosts_of(parts), sentinel_kwargs=_sentinel_options(parts), **_security(parts)
        )
        master: redis.Redis = sentinel.master_for(
            service_of(parts), redis_class=LeanRedis, db=database_of(parts), **options, **_security(parts)
        )
        return master
    if kind == "cluster":
        nodes = [redis.cluster.ClusterNode(host, port) for host, port in hosts_of(parts)]
        with broker_errors():  # the only form that connects at once: it asks the nodes for their slots
            cluster: Any = redis.RedisCluster(startup_nodes=nodes, **_cluster_options(), **_security(parts))
        return cluster  # type: ignore[no-any-return]
    client: redis.Redis = LeanRedis.from_url(_place(parts), **options, **_identity(parts), **_tls(parts))
    return client


def connect_async(url: str) -> redis.asyncio.Redis:
    """The asyncio twin of `connect`."""
    import redis.asyncio
    import redis.asyncio.sentinel

    from common.aiolean import AsyncLeanRedis

    parts = check_url(url)
    options = _options(parts, asyncio=True)
    kind = kind_of(parts)
    if kind == "sentinel":
        sentinel = redis.asyncio.sentinel.Sentinel(
            hosts_of(parts), sentinel_kwargs=_sentinel_options(parts), **_security(parts)
        )
        master: redis.asyncio.Redis = sentinel.master_for(
            service_of(parts), redis_class=AsyncLeanRedis, db=database_of(parts), **options, **_security(parts)
        )
        return master
    if kind == "cluster":
        nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in hosts_of(parts)]
        cluster: Any = redis.asyncio.RedisCluster(startup_nodes=nodes, **_cluster_options(), **_security(parts))
        return cluster  # type: ignore[no-any-return]
    client: redis.asyncio.Redis = AsyncLeanRedis.from_url(_place(parts), **options, **_identity(parts), **_tls(parts))
    return client


def execute_together(client: redis.Redis, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Commands in one round trip, their bare responses in order. Raises the first error among them."""
    together = getattr(client, "execute_together", None)
    if together is not None:
        responses: list[Any] = together(commands)
        return responses
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        return pipeline.execute()


async def execute_together_async(client: redis.asyncio.Redis, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The asyncio twin of `execute_together`."""
    together = getattr(client, "execute_together", None)
    if together is not None:
        responses: list[Any] = await together(commands)
        return responses
    async with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute()


def disconnect(client: redis.Redis) -> None:
    """Cut every connection of `client`, under the reads that other threads have on them too. It is used no more."""
    cluster: Any = client
    if hasattr(client, "disconnect_connection_pools"):
        cluster.disconnect_connection_pools()
    else:
        client.connection_pool.disconnect()
    client.close()


class _BrokerErrors:
    """A context of its own class: one made of a generator takes five times as long, and this is around each command."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, InferenceError):
            translated = _translated(error)
            if translated is not error:
                raise translated from error


_BROKER_ERRORS = _BrokerErrors()


def broker_errors() -> _BrokerErrors:
    """Turn the driver's errors into ours: the one place where they are known."""
    return _BROKER_ERRORS


def error_kind(error: Exception) -> str:
    """`NOSCRIPT`, `NOGROUP`, ...: the first word of Redis's own error reply, else an empty string."""
    import redis.exceptions

    if isinstance(error, redis.exceptions.NoScriptError):
        return "NOSCRIPT"
    if not isinstance(error, redis.exceptions.ResponseError):
        return ""
    word = _ERROR_WORD.search(str(error))
    return word.group(1) if word else ""


def error_text(error: BaseException) -> str:
    """What Redis says is wrong, without the place in our script where it met it."""
    return _SCRIPT.sub("", str(error)).removeprefix("-")


def is_silent(error: BrokerUnavailable) -> bool:
    """Whether it is a Redis that lets one connect and then does not answer in time: stopped, or busy."""
    import redis.exceptions

    cause = error.__cause__
    return isinstance(cause, redis.exceptions.TimeoutError) and "connecting" not in str(cause)


def _translated(error: Exception) -> Exception:
    import redis.exceptions

    if broken := tls.fault(error):
        return AccessDenied(broken)
    if _is_denied(error):
        return AccessDenied(f"Redis refuses the user, the password or a permission of the broker URL: {error}")
    refuses = (
        redis.exceptions.BusyLoadingError,
        redis.exceptions.ReadOnlyError,
        redis.exceptions.OutOfMemoryError,
        redis.exceptions.ClusterDownError,
        redis.exceptions.TryAgainError,
    )
    unavailable = (
        redis.exceptions.ConnectionError,
        redis.exceptions.TimeoutError,
        redis.exceptions.RedisClusterException,
        OSError,
    )
    if isinstance(error, refuses) or error_kind(error) in _PASSING:
        return BrokerRefuses(f"Redis refuses for now: {error_text(error)}")
    if isinstance(error, unavailable):
        return BrokerUnavailable(f"Redis does not answer: {error}")
    if isinstance(error, redis.exceptions.ResponseError):
        return InternalError(f"Redis refused a command: {error}. This is a bug.")
    return error


def _is_denied(error: BaseException) -> bool:
    import redis.exceptions

    if isinstance(error, redis.exceptions.RedisClusterException) and error.__cause__ is not None:
        return _is_denied(error.__cause__)  # None of the nodes let us in: told as if there were none.
    if isinstance(error, (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)):
        return True
    return isinstance(error, redis.exceptions.ResponseError) and _DENIED.search(str(error)) is not None


def _timeouts(socket_timeout_s: float = SOCKET_TIMEOUT_S) -> dict[str, Any]:
    return {"socket_timeout": socket_timeout_s, "socket_connect_timeout": CONNECT_TIMEOUT_S}


def _options(parts: SplitResult, asyncio: bool = False) -> dict[str, Any]:
    # Our loops retry with what they know; a driver that sends a `take` again would lose what the first one took.
    tcp = {} if parts.scheme == "unix" else tcp_options()
    return {"protocol": 2, "retry": _no_retry(asyncio), **tcp, **_timeouts()}


def _cluster_options() -> dict[str, Any]:
    # A cluster client's own retries follow MOVED and ASK, where nothing was executed yet.
    return {"protocol": 2, **tcp_options(), **_timeouts()}


def _no_retry(asyncio: bool) -> Any:
    if asyncio:
        import redis.asyncio.retry
        import redis.backoff

        return redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0)
    import redis.backoff
    import redis.retry

    return redis.retry.Retry(redis.backoff.NoBackoff(), 0)


def _sentinel_options(parts: SplitResult) -> dict[str, Any]:
    # Given any options, redis-py takes no timeouts over from the servers' for the Sentinels themselves.
    return {**tcp_options(), **_timeouts(), **_security(parts)}


def _security(parts: SplitResult) -> dict[str, Any]:
    return {**_identity(parts), **_tls(parts), "ssl": parts.scheme.startswith("rediss")}


def _identity(parts: SplitResult) -> dict[str, Any]:
    user = unquote(parts.username) if parts.username else None
    path = options_of(parts).get(credentials.PASSWORD_FILE)
    if path is not None:
        return {"credential_provider": credentials.FromFile(user, path)}
    return {"username": user, "password": unquote(parts.password) if parts.password else None}


def _tls(parts: SplitResult) -> dict[str, Any]:
    return tls.settings(options_of(parts))


def _place(parts: SplitResult) -> str:
    """The URL of one server without what is told beside it."""
    database = options_of(parts).get("db")
    # Not geturl(): it writes `unix:/path`.
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return place if database is None else f"{place}?db={database}"
