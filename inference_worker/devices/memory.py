"""Free and total memory as a value, and that of this host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inference_worker.devices.cores import read_text

_PROC = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
#: (limit, use) of version 2 and 1
_LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a device's memory: what nobody has taken, and all of it."""

    free: int
    total: int

    def __str__(self) -> str:
        return f"{show_bytes(self.free)} free of {show_bytes(self.total)}"


def host_memory(proc: Path = _PROC, cgroup: Path = _CGROUP) -> Memory:
    """This host's, cut to what its control group (version 2 or 1) still grants.

    Free is what the kernel could give without swapping, page cache included. Raises OSError on a system
    without /proc/meminfo.
    """
    figures = {name: int(rest.split()[0]) * 1024 for name, _, rest in _lines(proc)}
    host = Memory(figures["MemAvailable"], figures["MemTotal"])
    for limit, used in _LIMITS:
        bound, taken = read_text(cgroup / limit), read_text(cgroup / used)
        if bound is not None and taken is not None and bound.isdecimal() and int(bound) < host.total:
            return Memory(min(host.free, max(0, int(bound) - int(taken))), int(bound))
    return host


def show_bytes(size: int) -> str:
    """`size` for a person: "1.5 GiB"."""
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


def _lines(path: Path) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in path.read_text("ascii").splitlines()]
