"""Whose tokens a door accepts besides its own keys, as a value. Knows no token, and imports nothing for them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from common.errors import ConfigError
from common.names import shorten

#: What the clocks of issuer and door may differ by.
LEEWAY_S = 30.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Issuer:
    """`url` and `audience` as they stand in the tokens' `iss` and `aud`; `jwks` a file, or a URL, of the issuer's keys.

    `tenant_claim` is the claim that names the tenant itself, where no mapping does. Raises ConfigError.
    """

    url: str
    audience: str
    jwks: str
    tenant_claim: str | None = None
    leeway_s: float = LEEWAY_S

    def __post_init__(self) -> None:
        if not self.url or not self.audience:
            raise ConfigError("tokens need an issuer and an audience: --jwt-issuer and --jwt-audience")
        parts = urlsplit(self.jwks)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ConfigError(f"--jwks must be a file or an https:// URL, as whoever changes it lets himself in; "
                              f"got {shorten(self.jwks)}")  # fmt: skip

    @property
    def jwks_is_url(self) -> bool:
        return urlsplit(self.jwks).scheme in ("http", "https")
