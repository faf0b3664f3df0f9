"""Where a repository of models is: a URL that fsspec opens, checked, and shown without its secrets. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from common.errors import ConfigError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: Stores that are not asked for a list of their files.
_UNLISTED = ("http", "https")
#: Stores whose URL starts with a bucket: their credentials come from the environment or a file.
_BUCKETS = ("s3", "s3a", "gs", "gcs", "memory", "file")
#: A replaced text of fewer letters would be found by chance all over a message.
_LEAST_SECRET = 4


def is_url(place: str) -> bool:
    """Whether `place` is a URL rather than a local path."""
    return _URL.match(place) is not None


@dataclass(frozen=True, slots=True)
class Location:
    """A checked URL. `base` may hold a password, and `query` (with its '?') be one: neither is ever shown."""

    scheme: str
    base: str
    query: str
    secrets: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The URL without user, password and query: what goes into messages, logs and files, and names its cache."""
        place = self.base.partition("://")[2]
        host, slash, path = place.partition("/")
        return f"{self.scheme}://{host.rpartition('@')[2]}{slash}{path}"

    @property
    def lists(self) -> bool:
        """Whether the store can be asked which files it has."""
        return self.scheme not in _UNLISTED

    @property
    def parts(self) -> tuple[str, ...]:
        """What follows the host or the bucket: the last two name a model and its version, or its repository."""
        return tuple(unquote(part) for part in self.base.partition("://")[2].split("/")[1:] if part)

    def file(self, path: str) -> str:
        """The URL of a file, by its path inside the repository."""
        if self.lists:
            return f"{self.base}/{path}"
        return f"{self.base}/{quote(path)}{self.query}"

    def parent(self) -> Location | None:
        """The folder above this one; None for a host's or a bucket's root."""
        if not self.parts:
            return None
        return replace(self, base=self.base.rpartition("/")[0])

    def redact(self, text: str) -> str:
        """Somebody else's text about this URL, without the secrets in it."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def parse(url: str) -> Location:
    """Raises ConfigError for what is no URL of a folder, without its secrets in the text."""
    try:
        parts = urlsplit(url)
        _check(url, parts)
    except ValueError as error:
        raise ConfigError(f"the repository '{_hide(url)}' cannot be used: {error}") from None
    query = f"?{parts.query}" if parts.query else ""
    base = url.partition("?")[0].rstrip("/")
    return Location(parts.scheme.lower(), base, query, _secrets(parts))


def _check(url: str, parts: SplitResult) -> None:
    if any(ord(letter) <= ord(" ") or letter == "\x7f" for letter in url):
        raise ValueError("it holds spaces or control characters; write them as %20")
    if "::" in url:
        raise ValueError("chains of file systems ('::') are not supported; name the store itself")
    if any(unquote(part) in (".", "..") for part in parts.path.split("/")):
        raise ValueError("its path must not hold the parts '.' and '..'")
    if parts.fragment or (parts.query and parts.scheme not in _UNLISTED):
        raise ValueError("what follows '?' or '#' means nothing to this store")
    if parts.path.endswith(".py"):
        raise ValueError("it names a Python file; a URL names a folder of <name>/<version>/model.toml")
    if parts.scheme in _BUCKETS and parts.username is not None:
        raise ValueError("credentials of this store go into its own environment variables or files")
    if parts.scheme not in ("memory", "file") and not parts.netloc:
        raise ValueError("the host or bucket is missing")
    _ = parts.port if parts.scheme in _UNLISTED else None  # raises ValueError for one that is no number


def _secrets(parts: SplitResult) -> tuple[str, ...]:
    """Longest first: one may be a part of another."""
    found = {parts.password or "", unquote(parts.password or ""), parts.query}
    if parts.username and not parts.password:
        # A token stands where the user's name would.
        found |= {parts.username, unquote(parts.username)}
    found |= {value for _, value in parse_qsl(parts.query) if len(value) >= _LEAST_SECRET}
    return tuple(sorted(found - {""}, key=len, reverse=True))


def _hide(url: str) -> str:
    """`url` with *** for what stands before the host and for the values behind the '?'."""
    scheme, _, rest = url.partition("://")
    place, mark, query = rest.partition("?")
    before, at, behind = place.rpartition("@")
    # A '/' inside a password that was not written as %2F ends the host too early: then the '@' is in the path.
    if at and (":" in before or "/" not in before):
        place = f"***@{behind}"
    names = "&".join(f"{one.partition('=')[0]}=***" if "=" in one else "***" for one in query.split("&"))
    return f"{scheme}://{place}{mark}{names if mark else ''}"
