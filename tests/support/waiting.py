"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.005


def wait_until(condition: Callable[[], T], description: str, within_s: float = 10.0) -> T:
    """What `condition()` gives as soon as that is true. Fails with `description` and the last value otherwise."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {description} (last value: {value!r})")
        time.sleep(POLL_S)
    return value
