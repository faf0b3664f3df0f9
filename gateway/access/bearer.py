"""`Authorization: Bearer <key>`, as HTTP's header and gRPC's metadata have it. Pure."""

from __future__ import annotations


def bearer_of(authorization: bytes | None) -> str | None:
    """What stands behind `Bearer`; None where nothing does."""
    scheme, _, key = (authorization or b"").partition(b" ")
    return key.strip().decode("latin-1") if scheme.lower() == b"bearer" else None
