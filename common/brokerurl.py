"""A broker URL: what may stand in it, checked, and shown without its password. Pure; connect.py connects.

    redis://[[user]:password@]host[:port][/db]            rediss:// with TLS
    unix://[[user]:password@]/path/to/redis.sock[?db=0]
    redis+sentinel://[[user]:password@]host[:port][,host[:port]...]/service[?db=0]     rediss+sentinel://
    redis+cluster://[[user]:password@]host[:port][,host[:port]...]                     rediss+cluster://

Behind a ? may stand `db`, `password_file` (credentials.py) and, over TLS, the options of tls.py.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qs, urlsplit

from common import credentials, tls
from common.errors import ConfigError

DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}
FORMS = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
_SCHEMES = ("redis", "rediss", "unix", *(f"{plain}+{kind}" for plain in ("redis", "rediss") for kind in DEFAULT_PORTS))


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


def is_cluster(url: str) -> bool:
    """Whether pools live on different servers, so that one blocking read covers one pool only."""
    return kind_of(check_url(url)) == "cluster"


def kind_of(parts: SplitResult) -> str:
    """`sentinel`, `cluster`, or "" for one server."""
    return parts.scheme.partition("+")[2]


def hosts_of(parts: SplitResult) -> list[tuple[str, int]]:
    """(host, port) of each. Raises ValueError."""
    default = DEFAULT_PORTS.get(kind_of(parts), 6379)
    return [_host(one, default) for one in parts.netloc.rpartition("@")[2].split(",")]


def service_of(parts: SplitResult) -> str:
    """The master's name, by which Sentinels know it. Raises ValueError."""
    service = parts.path.strip("/")
    if not service:
        raise ValueError("the Sentinel form ends in the service's name, such as /mymaster")
    return service


def database_of(parts: SplitResult) -> int:
    """The number behind the ?, 0 where there is none. Raises ValueError."""
    text = parse_qs(parts.query).get("db", ["0"])[0]
    if not text.isdecimal():
        raise ValueError("db must be a number")
    return int(text)


def options_of(parts: SplitResult) -> dict[str, str]:
    """What stands behind the ?."""
    return {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}


def _hide_option(text: str) -> str:
    name = text.partition("=")[0]
    if name in ("db", credentials.PASSWORD_FILE, *tls.OPTIONS):
        return text
    return "password=***" if name == "password" else "***" if text else ""


def _check_place(parts: SplitResult) -> None:
    if parts.scheme == "unix":
        if not parts.path.strip("/"):
            raise ValueError("the socket's path is missing, such as unix:///run/redis.sock")
        return
    hosts_of(parts)
    kind, path = kind_of(parts), parts.path.strip("/")
    if kind == "sentinel":
        service_of(parts)
    elif path and (kind == "cluster" or not path.isdecimal()):
        raise ValueError("behind the host only a database number may stand, such as /0, and none for a Cluster")


def _check_options(parts: SplitResult) -> None:
    database_of(parts)
    over_tls = tls.OPTIONS if parts.scheme.startswith("rediss") else ()
    known, options = ("db", credentials.PASSWORD_FILE, *over_tls), options_of(parts)
    for name in options:
        if name not in known:
            # The name may be anything, and so a secret: it is not shown.
            raise ValueError(f"behind the ? it may set {', '.join(known)} only")
    if credentials.PASSWORD_FILE in options and parts.password:
        raise ValueError(f"it holds a password and names a {credentials.PASSWORD_FILE}: one of the two is enough")
    tls.check(options)


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
