"""Bearer tokens (JWT, RFC 7519) of another issuer, as OpenID Connect gives them: is one good, and what does it claim.

Imported only where tokens are accepted: it needs the extra `jwt`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt

from common.errors import Unauthenticated
from common.names import shorten
from gateway.access.issuer import Issuer
from gateway.access.jwks import Jwks, PublicKey

MAX_LENGTH = 16 * 1024
#: Verified ones are remembered until they expire, or the issuer's keys change: a signature takes as long as a request.
_MOST_KNOWN = 1024
_REQUIRED = ["exp", "iss", "aud"]

Claims = Mapping[str, Any]


class Tokens:
    """One issuer's."""

    def __init__(self, issuer: Issuer, jwks: Jwks, clock: Callable[[], float] = time.time) -> None:
        self._issuer = issuer
        self._jwks = jwks
        self._clock = clock
        self._known: dict[str, Claims] = {}

    @property
    def tenant_claim(self) -> str | None:
        return self._issuer.tenant_claim

    @property
    def are_elsewhere(self) -> bool:
        """The issuer's keys are fetched from another host, which may be away now and come back."""
        return self._issuer.jwks_is_url

    def look(self) -> None:
        """Follow the issuer's keys. Blocks. Raises ConfigError."""
        if self._jwks.look():
            self._known = {}

    def verify(self, text: str) -> Claims:
        """What a good token claims. Raises Unauthenticated."""
        known = self._known.get(text)
        if known is not None and self._clock() < float(known["exp"]) + self._issuer.leeway_s:
            return known
        claims = self._verified(text)
        if len(self._known) >= _MOST_KNOWN:
            self._known = {}
        self._known[text] = claims
        return claims

    def _verified(self, text: str) -> Claims:
        if len(text) > MAX_LENGTH:
            raise Unauthenticated(f"a token must have at most {MAX_LENGTH} characters; got {len(text)}")
        issuer = self._issuer
        try:
            header = jwt.get_unverified_header(text)
            key, algorithm = self._key_for(header), str(header.get("alg"))
            if algorithm not in key.algorithms:
                raise Unauthenticated(
                    f"the token's alg must be one of {', '.join(key.algorithms)} for its key; got {shorten(algorithm)}"
                )
            claims: Claims = jwt.decode(
                text, key.key, algorithms=[algorithm], audience=issuer.audience, issuer=issuer.url,
                leeway=issuer.leeway_s, options={"require": _REQUIRED},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is not accepted: {error}; get a new one from {issuer.url}") from None
        return claims

    def _key_for(self, header: Mapping[str, Any]) -> PublicKey:
        keys, id = self._jwks.keys, header.get("kid")
        if id is None and len(keys) == 1:
            return next(iter(keys.values()))
        found = keys.get(id) if isinstance(id, str) else None
        if found is None:
            self._jwks.want()
            raise Unauthenticated(
                f"the token's key {shorten(id)} is not among those of {self._issuer.url}; one that is new is known "
                "within seconds"
            )
        return found
