"""An issuer's public keys (JWKS, RFC 7517) from a file or a URL, by their ids, followed as they are rotated."""

from __future__ import annotations

import http.client
import json
import logging
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import jwt

from common.errors import ConfigError
from common.names import shorten
from gateway.access.issuer import Issuer

log = logging.getLogger(__name__)

#: A URL is asked again so often; sooner for a key that nobody knows, but not for each token that names one.
REFRESH_S = 300.0
UNKNOWN_S = 5.0
TIMEOUT_S = 5.0
MAX_BYTES = 1024 * 1024

#: Which algorithms a key of a type may verify. No `none`; no HMAC, whose secret would be the public key's text.
ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """`key` is cryptography's own object; `algorithms` those that it may verify."""

    key: Any
    algorithms: tuple[str, ...]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The keys are at the place that was named, or nowhere."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def fetched(url: str) -> bytes:
    """Raises ConfigError."""
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(url, timeout=TIMEOUT_S) as response:
            text: bytes = response.read(MAX_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ConfigError(f"the keys of the tokens' issuer cannot be fetched from {shorten(url)}: {error}") from None
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{shorten(url)} must have at most {MAX_BYTES} bytes as a JWKS; got more")
    return text


class Jwks:
    """`keys` by id are those read last. `look` blocks: it belongs in a thread."""

    def __init__(
        self, issuer: Issuer, clock: Callable[[], float] = time.monotonic, fetch: Callable[[str], bytes] = fetched
    ) -> None:
        self._source = issuer.jwks
        self._is_url = issuer.jwks_is_url
        self._clock = clock
        self._fetch = fetch
        self._read_at_s: float | None = None
        self._text = b""
        self._wanted = False
        self.keys: Mapping[str, PublicKey] = {}

    def want(self) -> None:
        """A token names a key that is not among them: perhaps it is new."""
        self._wanted = True

    def look(self) -> bool:
        """Read them again where that is due; True where they have changed. Raises ConfigError: those before hold."""
        if not self._is_due():
            return False
        self._read_at_s, self._wanted = self._clock(), True
        text = self._fetch(self._source) if self._is_url else _read(self._source)
        self._wanted = False
        if text == self._text:
            return False
        self.keys = read_jwks(self._source, text)
        self._text = text
        return True

    def _is_due(self) -> bool:
        if self._read_at_s is None or not self._is_url:
            return True
        age_s = self._clock() - self._read_at_s
        return age_s >= REFRESH_S or (self._wanted and age_s >= UNKNOWN_S)


def read_jwks(source: str, text: bytes) -> dict[str, PublicKey]:
    """Keys that sign by the id "" where they have none; those of other kinds are passed over. Raises ConfigError."""
    try:
        listed = json.loads(text)["keys"]
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise TypeError("keys must be a list of objects")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(f'{shorten(source)} is no JWKS, {{"keys": [...]}}: {error!r}') from None
    found: dict[str, PublicKey] = {}
    for one in listed:
        algorithms = ALGORITHMS.get(str(one.get("kty")), ())
        if "alg" in one:
            algorithms = tuple(name for name in algorithms if name == one["alg"])
        if algorithms and one.get("use", "sig") == "sig":
            _add(found, one, algorithms)
    return found


def _add(found: dict[str, PublicKey], told: dict[str, Any], algorithms: tuple[str, ...]) -> None:
    id = str(told.get("kid", ""))
    try:
        # By its id and its type alone: of what else it says of itself nothing decides.
        key = jwt.PyJWK({name: value for name, value in told.items() if name != "alg"}).key
    except jwt.PyJWTError as error:
        log.warning("the key %s of the tokens' issuer is passed over: %s", shorten(id), error)
        return
    found[id] = PublicKey(key, algorithms)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"--jwks {path} cannot be read: {error.strerror or error}") from None
