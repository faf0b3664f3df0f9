"""Checks of this host: cores and threads, open files, memory, disk. Pure, but for `read`."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from inference_worker.cli.doctor.finding import Finding, error, note, warning, well
from inference_worker.devices.cores import Cores, usable_cores
from inference_worker.devices.memory import Memory, host_memory
from inference_worker.host_cache import cache_folder
from inference_worker.supervision.placement import THREADS

#: A gateway needs one for each caller; a worker a dozen, and one for each file of its models.
FILES = 4096
#: Less than so much is soon full of one model.
DISK_BYTES = 2 * 2**30
#: Below this share of it, or of memory, it is nearly full.
LEFT = 0.05


@dataclass(frozen=True, slots=True)
class Host:
    """What is looked at. `files`: the soft and the hard limit; `disk`: that on which models from a URL are kept."""

    cores: Cores
    cpus: int
    files: tuple[int, int]
    memory: Memory | None
    cache: Path
    disk: Memory | None
    environment: Mapping[str, str]


def read() -> Host:
    cache = cache_folder()
    return Host(
        usable_cores(),
        os.cpu_count() or 1,
        resource.getrlimit(resource.RLIMIT_NOFILE),
        _memory(),
        cache,
        _disk(cache),
        os.environ,
    )


def findings(host: Host) -> Iterator[Finding]:
    yield cores(host)
    yield threads(host)
    yield files(host)
    yield memory(host)
    yield disk(host)


def cores(host: Host) -> Finding:
    usable = len(host.cores.ids)
    if not host.cores.pin and usable < host.cpus:
        return note(
            "cores",
            f"{usable} of {host.cpus} by a CPU quota",
            "a quota stops all threads of a process for the rest of a tenth of a second once it is used up",
            "give containers whole cores by a cpuset (Kubernetes: the static CPU manager policy)",
        )
    return well("cores", f"{usable} of {host.cpus}")


def threads(host: Host) -> Finding:
    """The supervisor sets these for its workers, in place of what it finds."""
    found = {name: value for name in THREADS if (value := host.environment.get(name))}
    if found:
        told = ", ".join(f"{name}={value}" for name, value in found.items())
        return note(
            "threads",
            told,
            "workers do not follow it: their supervisor shares the cores out among them",
            "choose processes by --procs; unset it, unless other programs need it",
        )
    return well("threads", "set by each supervisor for its workers")


def files(host: Host) -> Finding:
    soft, hard = host.files
    if soft == resource.RLIM_INFINITY or soft >= FILES:
        return well("open files", "no limit" if soft == resource.RLIM_INFINITY else f"up to {soft}")
    return warning(
        "open files",
        f"up to {soft}",
        "a gateway refuses connections when it has so many",
        f"ulimit -n {FILES} or more (systemd: LimitNOFILE); the hard limit is {hard}",
    )


def memory(host: Host) -> Finding:
    if host.memory is None:
        return note("memory", "this system does not tell")
    if host.memory.free < LEFT * host.memory.total:
        return warning(
            "memory",
            str(host.memory),
            "the system may kill workers",
            "serve fewer models, or bound them: --memory-budget",
        )
    return well("memory", str(host.memory))


def disk(host: Host) -> Finding:
    check = "disk"
    if host.disk is None:
        return note(check, f"{host.cache} cannot be looked at")
    told = f"{host.disk} at {host.cache}"
    if host.disk.free >= max(DISK_BYTES, LEFT * host.disk.total):
        return well(check, told)
    make = error if host.disk.free < DISK_BYTES // 8 else warning
    return make(
        check,
        told,
        "models from a URL cannot be fetched",
        "`inference-worker models cache clear`, or name another place by --cache",
    )


def _memory() -> Memory | None:
    try:
        return host_memory()
    except OSError:
        return None


def _disk(folder: Path) -> Memory | None:
    """Of the file system that the folder is on, or will be."""
    there = next((one for one in (folder, *folder.parents) if one.exists()), None)
    if there is None:
        return None
    try:
        usage = shutil.disk_usage(there)
    except OSError:
        return None
    return Memory(usage.free, usage.total)
