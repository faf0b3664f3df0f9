"""The CPU cores that we may use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Cores:
    """The core ids to plan with. `pin` is False where a quota, not the ids, bounds us: no core is ours then."""

    ids: tuple[int, ...]
    pin: bool


def usable_cores() -> Cores:
    """The cores that the scheduler lets this process use, cut to the container's CPU quota."""
    ids = _affinity()
    quota = cpu_quota(_CGROUP)
    if quota is None or quota >= len(ids):
        return Cores(ids, pin=hasattr(os, "sched_setaffinity"))
    return Cores(ids[: max(1, int(quota))], pin=False)


def cpu_quota(root: Path) -> float | None:
    """The CPUs' worth of time that the control group under `root` grants, version 2 or 1; None where unbounded."""
    if (text := read_text(root / "cpu.max")) is not None:
        granted, _, period = text.partition(" ")
    else:
        granted = read_text(root / "cpu" / "cpu.cfs_quota_us") or "max"
        period = read_text(root / "cpu" / "cpu.cfs_period_us") or "100000"
    if granted in ("max", "-1"):
        return None
    return int(granted) / int(period)


def read_text(path: Path) -> str | None:
    """A file of the kernel's, or None where there is none."""
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return None


def _affinity() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))
