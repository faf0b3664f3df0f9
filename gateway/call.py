"""What a caller asks of a model, as he said it, all but the inputs; and how long it may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Call(NamedTuple):
    """The arguments of `infer`, `submit` and `map`; `timeout` in seconds, None for the client's own."""

    model: str
    version: str | None = None
    parameters: Mapping[str, Any] | None = None
    outputs: Sequence[str] | None = None
    priority: str = "normal"
    timeout: float | None = None
    tenant: str | None = None
    cache: bool = True
    affinity: str | None = None


class Times(NamedTuple):
    """A deadline in the client's clock, the seconds that the caller gave, and whether an overload is waited out."""

    deadline: float
    timeout_s: float
    patient: bool
