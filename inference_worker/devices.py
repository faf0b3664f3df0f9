"""What this host has: the cores and GPUs that we may use. Asks without torch, which the supervisor never loads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: A driver that wakes its GPUs takes seconds to list them; one that hangs must not hang the start.
LIST_TIMEOUT_S = 20.0

_CGROUP = Path("/sys/fs/cgroup")
_GPU = re.compile(r"GPU (\d+): .*\(UUID: (GPU-[^)]+)\)")
_SLICE = re.compile(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)")


@dataclass(frozen=True, slots=True)
class Cores:
    """The core ids to plan with. `pin` is False where a quota, not the ids, bounds us: no core is ours then."""

    ids: tuple[int, ...]
    pin: bool


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as `nvidia-smi -L` lists it, with its MIG slices."""

    uuid: str
    slices: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """What a process can open: the slices where the GPU is cut into some, else the GPU."""
        return self.slices or (self.uuid,)


def usable_cores() -> Cores:
    """The cores that the scheduler lets this process use, cut to the container's CPU quota."""
    ids = _affinity()
    quota = cpu_quota(_CGROUP)
    if quota is None or quota >= len(ids):
        return Cores(ids, pin=hasattr(os, "sched_setaffinity"))
    return Cores(ids[: max(1, int(quota))], pin=False)


def usable_gpus(environ: Mapping[str, str]) -> list[str]:
    """A CUDA_VISIBLE_DEVICES value for each GPU that this process may use, in order; empty without a driver."""
    return visible(environ.get("CUDA_VISIBLE_DEVICES"), parse_listing(_list_gpus()))


def visible(mask: str | None, gpus: Sequence[Gpu]) -> list[str]:
    """`gpus` as CUDA would show them under `mask`, an inherited CUDA_VISIBLE_DEVICES.

    As CUDA does it, the first entry that is not there ends the list, so "-1" and "" hide all of them.
    """
    if mask is None:
        return [device for gpu in gpus for device in gpu.devices]
    shown = []
    for entry in mask.split(","):
        if not _present(entry.strip(), gpus):
            break
        shown.append(entry.strip())
    return shown


def parse_listing(text: str) -> list[Gpu]:
    """The GPUs in the output of `nvidia-smi -L`."""
    gpus: list[Gpu] = []
    for line in text.splitlines():
        if whole := _GPU.match(line):
            gpus.append(Gpu(whole[2]))
        elif (part := _SLICE.match(line)) and gpus:
            gpus[-1] = Gpu(gpus[-1].uuid, (*gpus[-1].slices, part[1]))
    return gpus


def cpu_quota(root: Path) -> float | None:
    """The CPUs' worth of time that the control group under `root` grants, version 2 or 1; None where unbounded."""
    if (text := _read(root / "cpu.max")) is not None:
        granted, _, period = text.partition(" ")
    else:
        granted = _read(root / "cpu" / "cpu.cfs_quota_us") or "max"
        period = _read(root / "cpu" / "cpu.cfs_period_us") or "100000"
    if granted in ("max", "-1"):
        return None
    return int(granted) / int(period)


def _present(entry: str, gpus: Sequence[Gpu]) -> bool:
    if entry.isdecimal():
        return int(entry) < len(gpus)
    # CUDA takes the beginning of a UUID for the whole.
    names = [name for gpu in gpus for name in (gpu.uuid, *gpu.slices)]
    return bool(entry) and any(name.startswith(entry) for name in names)


def _affinity() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _list_gpus() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        listing = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=LIST_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        # A driver in that state serves no work either: the same as no GPU, and `cuda` says that it found none.
        return ""
    return listing.stdout if listing.returncode == 0 else ""


def _read(path: Path) -> str | None:
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return None
