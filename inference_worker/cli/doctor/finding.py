"""What a check found: how bad it is, what it means, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """From what is well to what does not work."""

    OK = 0
    NOTE = 1  # it was not looked at, or matters only to some
    WARNING = 2  # it works, and will hurt
    ERROR = 3  # it does not work, or loses requests


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` was found by `check`; `means` and `do` say why it matters and the next step, "" where all is well."""

    check: str
    severity: Severity
    what: str
    means: str = ""
    do: str = ""


def well(check: str, what: str) -> Finding:
    return Finding(check, Severity.OK, what)


def note(check: str, what: str, means: str = "", do: str = "") -> Finding:
    return Finding(check, Severity.NOTE, what, means, do)


def warning(check: str, what: str, means: str, do: str) -> Finding:
    return Finding(check, Severity.WARNING, what, means, do)


def error(check: str, what: str, means: str, do: str) -> Finding:
    return Finding(check, Severity.ERROR, what, means, do)
