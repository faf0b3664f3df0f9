"""Records: values that are frozen for the type checker, and cost no more than plain assignments at run time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def record(*, eq: bool = True) -> Callable[[type[T]], type[T]]:
    """A slotted dataclass that nobody may change, which mypy sees to.

    For what is made for each request: a frozen dataclass sets its fields by `object.__setattr__`, and takes five
    times as long to make. Without `eq` each value equals itself alone.
    """
    return dataclass(slots=True, eq=eq, unsafe_hash=eq)
