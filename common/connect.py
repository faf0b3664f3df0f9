"""A broker URL to a Redis client: one server, Sentinel or Cluster, sync or asyncio. Nobody else imports redis.

    redis://[[user]:password@]host[:port][/db]            rediss:// with TLS
    unix://[[user]:password@]/path/to/redis.sock[?db=0]
    redis+sentinel://[[user]:password@]host[:port][,host[:port]...]/service[?db=0]     rediss+sentinel://
    redis+cluster://[[user]:password@]host[:port][,host[:port]...]                     rediss+cluster://

Behind a ? may stand `db`, `password_file` (credentials.py) and, over TLS, the options of tls.py.

redis is imported when the first connection is made: it takes longer to import than all of the client.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from common import credentials, tls
from common.errors import (
    AccessDenied,
    BrokerRefuses,
    BrokerUnavailable,
    ConfigError,
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
DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}
FORMS = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
_SCHEMES = ("redis", "rediss", "unix", *(f"{plain}+{kind}" for plain in ("redis", "rediss") for kind in DEFAULT_PORTS))

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
    kind = _kind(parts)
    if kind == "sentinel":
        sentinel = redis.sentinel.Sentinel(_hosts(parts), sentinel_kwargs=_sentinel_options(parts), **_security(parts))
        master: redis.Redis = sentinel.master_for(
            _service(parts), redis_class=LeanRedis, db=_database(parts), **options, **_security(parts)
        )
        return master
    if kind == "cluster":
        nodes = [redis.cluster.ClusterNode(host, port) for host, port in _hosts(parts)]
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
    kind = _kind(parts)
    if kind == "sentinel":
        sentinel = redis.asyncio.sentinel.Sentinel(
            _hosts(parts), sentinel_kwargs=_sentinel_options(parts), **_security(parts)
        )
        master: redis.asyncio.Redis = sentinel.master_for(
            _service(parts), redis_class=AsyncLeanRedis, db=_database(parts), **options, **_security(parts)
        )
        return master
    if kind == "cluster":
        nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in _hosts(parts)]
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


def is_cluster(url: str) -> bool:
    """Whether pools live on different servers, so that one blocking read covers one pool only."""
    return _kind(check_url(url)) == "cluster"


def check_url(url: str) -> SplitResult:
    """The parts of a broker URL. Raises ConfigError, without the password in its text."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"it must start with {FORMS}")
        _check_place(parts)
        _check_options(parts)
    except ValueError as error:
        raise ConfigError(f"broker URL '{hide_password(url)}' is malformed: {error}") from None
    return parts


def hide_password(url: str) -> str:
    """`url` as it may be shown: the password is replaced by ***, and so is what it sets that we do not know."""
    scheme, separator, rest = url.rpartition("://")
    credentials_, at, place = rest.rpartition("@")
    place, mark, query = place.partition("?")
    behind = mark + "&".join(map(_hide_option, query.split("&")))
    if not at:
        # `redis://:secret` lacks its host: what stands where a port would is no port, so it may be the password.
        return scheme + separator + re.sub(r":(?!\d{1,5}(?:[/,]|$))[^/,\]]+(?=[/,]|$)", ":***", place) + behind
    user, colon, _ = credentials_.partition(":")
    return f"{scheme}{separator}{user}{':***' if colon else ''}@{place}{behind}"


def _hide_option(text: str) -> str:
    name = text.partition("=")[0]
    if name in ("db", credentials.PASSWORD_FILE, *tls.OPTIONS):
        return text
    return "password=***" if name == "password" else "***" if text else ""


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


def _kind(parts: SplitResult) -> str:
    return parts.scheme.partition("+")[2]


def _security(parts: SplitResult) -> dict[str, Any]:
    return {**_identity(parts), **_tls(parts), "ssl": parts.scheme.startswith("rediss")}


def _identity(parts: SplitResult) -> dict[str, Any]:
    user = unquote(parts.username) if parts.username else None
    path = _option(parts, credentials.PASSWORD_FILE)
    if path is not None:
        return {"credential_provider": credentials.FromFile(user, path)}
    return {"username": user, "password": unquote(parts.password) if parts.password else None}


def _tls(parts: SplitResult) -> dict[str, Any]:
    return tls.settings(_all_options(parts))


def _place(parts: SplitResult) -> str:
    """The URL of one server without what is told beside it."""
    database = _option(parts, "db")
    # Not geturl(): it writes `unix:/path`.
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return place if database is None else f"{place}?db={database}"


def _all_options(parts: SplitResult) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}


def _option(parts: SplitResult, name: str) -> str | None:
    return _all_options(parts).get(name)


def _check_place(parts: SplitResult) -> None:
    if parts.scheme == "unix":
        if not parts.path.strip("/"):
            raise ValueError("the socket's path is missing, such as unix:///run/redis.sock")
        return
    _hosts(parts)
    kind, path = _kind(parts), parts.path.strip("/")
    if kind == "sentinel":
        _service(parts)
    elif path and (kind == "cluster" or not path.isdecimal()):
        raise ValueError("behind the host only a database number may stand, such as /0, and none for a Cluster")


def _check_options(parts: SplitResult) -> None:
    _database(parts)
    over_tls = tls.OPTIONS if parts.scheme.startswith("rediss") else ()
    known, options = ("db", credentials.PASSWORD_FILE, *over_tls), _all_options(parts)
    for name in options:
        if name not in known:
            # The name may be anything, and so a secret: it is not shown.
            raise ValueError(f"behind the ? it may set {', '.join(known)} only")
    if credentials.PASSWORD_FILE in options and parts.password:
        raise ValueError(f"it holds a password and names a {credentials.PASSWORD_FILE}: one of the two is enough")
    tls.check(options)


def _hosts(parts: SplitResult) -> list[tuple[str, int]]:
    default = DEFAULT_PORTS.get(_kind(parts), 6379)
    return [_host(one, default) for one in parts.netloc.rpartition("@")[2].split(",")]


def _host(text: str, default: int) -> tuple[str, int]:
    single = urlsplit(f"//{text}")
    try:
        port = single.port
    except ValueError:
        # Its own text shows what stands there: the password, where a / or # in it was not written as %2F or %23.
        raise ValueError(
            "a port must be a number up to 65535 (in a password '/', '#' and '?' are written %2F, %23 and %3F)"
        ) from None
    if not single.hostname:
        raise ValueError("a host is missing")
    return single.hostname, port or default


def _service(parts: SplitResult) -> str:
    service = parts.path.strip("/")
    if not service:
        raise ValueError("the Sentinel form ends in the service's name, such as /mymaster")
    return service


def _database(parts: SplitResult) -> int:
    text = parse_qs(parts.query).get("db", ["0"])[0]
    if not text.isdecimal():
        raise ValueError("db must be a number")
    return int(text)
