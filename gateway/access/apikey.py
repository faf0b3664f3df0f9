"""An API key: made once and shown once, kept as a salted hash, compared in constant time. Pure.

A key is `iw_<id>_<secret>`: the id finds its record, the secret has 256 random bits. So many cannot be guessed,
and the hash may be a fast one: BLAKE2b, keyed by a salt of the record's own.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

PREFIX = "iw"
_KEY = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")
_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key. `salt` and `hash` in hexadecimal; times in seconds since 1970; 0: it does not expire."""

    id: str
    tenant: str
    salt: str
    hash: str
    created_s: int
    expires_s: int = 0

    def matches(self, secret: str) -> bool:
        """In a time that tells nothing of where they differ."""
        return hmac.compare_digest(_hash(self.salt, secret), self.hash)

    def expired(self, now_s: float) -> bool:
        return 0 < self.expires_s <= now_s


class NewKey(NamedTuple):
    """A key as its owner gets it, this once, and as it is kept."""

    text: str
    record: KeyRecord


def new_key(tenant: str, now_s: float, expires_s: int = 0) -> NewKey:
    id, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(_SALT_BYTES)
    record = KeyRecord(id, tenant, salt, _hash(salt, secret), int(now_s), expires_s)
    return NewKey(f"{PREFIX}_{id}_{secret}", record)


def split_key(text: str) -> tuple[str, str] | None:
    """(id, secret), or None for what is no key of ours."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


def _hash(salt: str, secret: str) -> str:
    return blake2b(secret.encode(), key=bytes.fromhex(salt), digest_size=32).hexdigest()
