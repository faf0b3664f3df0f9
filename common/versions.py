"""Versions of a model: how they compare (numbers as numbers, names not at all), and how one is spelled. Pure."""

from __future__ import annotations

import re

from common.names import MAX_NAME

# "4", "1.10", "v2.0.1". Anything else ("latest", "2.0-rc1") is a name: equal to itself only.
_NUMBERED = re.compile(r"v?(\d+(?:\.\d+)*)")


def version_number(version: str) -> tuple[int, ...] | None:
    """`1.10.0` as (1, 10), so that 1.9 < 1.10 and 4 equals 4.0; None for a version that is a name."""
    match = _NUMBERED.fullmatch(version)
    if match is None or len(version) > MAX_NAME:
        # Nothing that long is a version; and Python reads no more than 4300 digits.
        return None
    parts = [int(part) for part in match[1].split(".")]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def version_order(version: str) -> tuple[bool, tuple[int, ...], str]:
    """A key that sorts versions from old to new: any number is newer than any name."""
    number = version_number(version)
    return number is not None, number or (), version


def label_of(name: str, version: str | None) -> str:
    """`name:version`, or the name alone."""
    return name if version is None else f"{name}:{version}"
