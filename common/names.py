"""Checks of the names that enter a Redis key, a path, a log line or a metric label."""

from __future__ import annotations

import re

from common.errors import InvalidRequest

MAX_NAME = 128
MAX_ID = 128

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# A partition of a pool is written `pool/3`; a request id may hold what base64 and UUIDs need.
_POOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[0-9]{1,4})?")
_ID = re.compile(r"[A-Za-z0-9._:=+~-]{1,128}")


def check_name(field: str, value: object) -> str:
    """`value` as a model, version, tenant or client name.

    Raises InvalidRequest unless it is 1 to 128 of `A-Z a-z 0-9 . _ -` and starts with a letter or digit.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidRequest(
            f"{field} must be 1 to {MAX_NAME} letters, digits, '.', '_' or '-', "
            f"starting with a letter or digit; got {shorten(value)}"
        )
    return value


def check_pool(value: object) -> str:
    """`value` as a pool's name, `name` or `name/partition`. Raises InvalidRequest."""
    if not isinstance(value, str) or not _POOL.fullmatch(value):
        raise InvalidRequest(
            f"pool must be 1 to {MAX_NAME} letters, digits, '.', '_' or '-', "
            f"and may end in '/partition'; got {shorten(value)}"
        )
    return value


def check_id(value: object) -> str:
    """`value` as a request id: 1 to 128 of `A-Z a-z 0-9 . _ : = + ~ -`. Raises InvalidRequest."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidRequest(f"id must be 1 to {MAX_ID} letters, digits or any of '._:=+~-'; got {shorten(value)}")
    return value


def is_id(value: str) -> bool:
    """Whether `check_id` takes it."""
    return _ID.fullmatch(value) is not None


def shorten(value: object, limit: int = 60) -> str:
    """`repr(value)` on one line, cut to `limit` characters: safe to put into a message or a log."""
    # A string is cut before repr() so that a 64 MiB one is not copied to print 60 characters.
    if isinstance(value, (str, bytes, bytearray)):
        value = value[: limit + 1]
    elif isinstance(value, (list, tuple, dict, memoryview)):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
