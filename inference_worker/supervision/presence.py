"""What Redis shall know of one pool's workers and models, as a value: supervisors say it again and again (link.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Presence:
    """What Redis shall know of one pool: consumer -> description, `name:version` -> metadata.

    `serving`: some worker is ready, so that `models` is all that this supervisor's workers offer. `unused`: consumers
    that have ended and never took work.
    """

    workers: Mapping[str, bytes] = field(default_factory=dict)
    models: Mapping[str, bytes] = field(default_factory=dict)
    serving: bool = False
    unused: frozenset[str] = frozenset()

    def same_names(self, other: Presence) -> bool:
        return self.workers.keys() == other.workers.keys() and self.models.keys() == other.models.keys()
