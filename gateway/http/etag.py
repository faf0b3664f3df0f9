"""ETag and If-None-Match: whoever has a kept result already gets 304 instead of it. Pure.

The tag is the digest of all that the result depends on, the model's weights among it (common/digest.py), and of the
form in which it was asked for. It is a weak one: computed anew, a result may differ in its last bits.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.http.status import Headers
from gateway.result import Result

HIT = (b"x-cache", b"hit")


def tag_of(result: Result, form: str) -> bytes | None:
    """None for what is not kept: its model does not cache, or the caller wanted it anew."""
    digest = result.digest
    return None if digest is None else f'W/"{digest}-{form}"'.encode()


def is_known(headers: Mapping[bytes, bytes], tag: bytes | None) -> bool:
    """Whether If-None-Match names it, weakly compared."""
    told = headers.get(b"if-none-match")
    if told is None or tag is None:
        return False
    return told.strip() == b"*" or any(_opaque(one) == _opaque(tag) for one in told.split(b","))


def headers_of(result: Result, tag: bytes | None) -> Headers:
    """What an answer says of the cache."""
    headers: Headers = [HIT] if result.cached else []
    if tag is not None:
        headers.append((b"etag", tag))
    return headers


def _opaque(tag: bytes) -> bytes:
    return tag.strip().removeprefix(b"W/")
