"""Devices and cores to one placement for each child process. Pure: enumeration is devices/, starting is child.py."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from common.errors import ConfigError
from common.names import shorten
from inference_worker.devices.memory import Memory, show_bytes
from inference_worker.models.scope import Scope, everything, is_in
from inference_worker.models.spec import ModelSpec

#: One CPU process for so many cores. A small batch gains little from more threads, while a second process
#: has an interpreter lock of its own; below eight cores all threads go to one process, and weights load once.
CORES_PER_PROCESS = 4
#: Beside a CPU pool, the most cores that a GPU's process keeps: it decodes and tokenizes, the GPU does the rest.
CORES_PER_GPU = 4

_FORMS = "cpu, cuda, cuda:N or auto, separated by commas"
#: Read by the numeric libraries when they load, so they must be set before the child starts.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one child runs.

    `device` is its name outside (`cpu`, `cuda:1`); `visible` the value of CUDA_VISIBLE_DEVICES; `cores`
    the ids that it is pinned to, empty where it is not pinned. `siblings` are the devices of all of its pool's
    processes on this host, of which it is number `seat`.
    """

    index: int
    device: str
    visible: str
    threads: int
    cores: tuple[int, ...]
    siblings: tuple[str, ...] = ()
    seat: int = 0

    @property
    def inner_device(self) -> str:
        """The device's name inside the child, which sees one GPU at most."""
        return "cuda:0" if self.visible else "cpu"


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the flags ask for: GPU numbers, and whether a CPU pool is wanted, or only where cores are left."""

    gpus: tuple[int, ...]
    cpu: bool
    cpu_if_left: bool


def place(
    device: str, procs: int | None, cores: Sequence[int], gpus: Sequence[str], pin: bool = True
) -> list[Placement]:
    """One placement for each process that `device` asks for: `cpu`, `cuda:N`, `cuda`, `auto`, or several with commas.

    `procs` is the number of CPU processes (default: one for four cores), `cores` the ids this host lets us
    use, `gpus` the CUDA_VISIBLE_DEVICES value of each GPU. `auto` is every GPU, and a CPU pool on what cores
    are left. Threads never exceed the cores, but each process has one. Raises ConfigError.
    """
    wish = _parse(device, gpus)
    for_gpus, for_cpu = _divide(wish, procs or 0, cores)
    processes = _cpu_processes(device, procs, wish, for_cpu)
    crowded = len(wish.gpus) + processes > len(cores)
    shares: list[Sequence[int]]
    if crowded:
        shares = [(core,) for core in islice(cycle(cores), len(wish.gpus) + processes)]
    else:
        shares = _split(for_gpus, len(wish.gpus)) + _split(for_cpu, processes)
    kinds = [(f"cuda:{number}", gpus[number]) for number in wish.gpus] + [("cpu", "")] * processes
    siblings = tuple(name for name, _ in kinds)
    # Processes that share cores are left to the scheduler: pinned, two busy ones could meet beside an idle core.
    return [
        Placement(index, name, visible, len(share), () if crowded or not pin else tuple(share), siblings, index)
        for index, ((name, visible), share) in enumerate(zip(kinds, shares, strict=True))
    ]


def environment(placement: Placement) -> dict[str, str]:
    """What the child's environment must say before it imports torch or numpy."""
    threads = str(placement.threads)
    return {
        "CUDA_VISIBLE_DEVICES": placement.visible,
        # The process's one thread pool is torch's: tokenizers would add one of its own for each batch.
        "TOKENIZERS_PARALLELISM": "false",
        **dict.fromkeys(THREADS, threads),
    }


def check_seat(specs: Iterable[ModelSpec], siblings: Sequence[str], seat: int, scope: Scope = everything) -> None:
    """Raises ConfigError where the process in that seat is not to load one of its pool's models.

    A pool's requests come to any of its processes, so each of them serves all of the pool's models or takes no part.
    Models outside of `scope` that do not fit here are passed over.
    """
    fitting = list(range(len(siblings)))
    for spec in specs:
        wanted, replicas = spec.residence.device, spec.residence.replicas
        if not fits(wanted, siblings[seat]):
            if not is_in(scope, spec):
                continue
            raise ConfigError(
                f"model '{spec.name}:{spec.version}' is to run on '{wanted}' (placement.device) and this process of "
                f"pool '{spec.pool}' is on '{siblings[seat]}'; start the pool with --device {wanted}, or give the "
                "model a pool of its own"
            )
        fitting = [one for one in fitting if fits(wanted, siblings[one])]
        if replicas is not None and seat not in fitting[:replicas] and is_in(scope, spec):
            raise ConfigError(
                f"model '{spec.name}:{spec.version}' is wanted in {replicas} processes of a host "
                f"(placement.replicas), and of the {len(siblings)} of pool '{spec.pool}' those before number {seat} "
                "serve it; this one is not needed"
            )


def check_memory(specs: Iterable[ModelSpec], device: str, memory: Memory) -> None:
    """Raises ConfigError where the memory that models declare, all together, is more than the device has free."""
    needs = {f"{spec.name}:{spec.version}": spec.residence.memory for spec in specs if spec.residence.memory}
    need = sum(needs.values())
    if need > memory.free:
        listed = ", ".join(f"{name} {show_bytes(one)}" for name, one in needs.items())
        raise ConfigError(
            f"the models declare {show_bytes(need)} of memory (placement.memory: {listed}), and '{device}' has "
            f"{memory}; serve some of them elsewhere, or free memory there"
        )


def fits(wanted: str | None, device: str) -> bool:
    """Whether a model that is to run on `wanted` (cpu, cuda: any GPU, cuda:1; None: anywhere) may run on `device`."""
    return wanted in (None, device, device.partition(":")[0])


def _parse(device: str, gpus: Sequence[str]) -> _Wish:
    numbers: set[int] = set()
    names = [name.strip() for name in device.split(",")]
    for name in names:
        if name in ("cuda", "auto"):
            numbers.update(range(len(gpus)))
        elif found := re.fullmatch(r"cuda:([0-9]{1,4})", name):
            numbers.add(int(found[1]))
        elif name != "cpu":
            raise ConfigError(f"device must be {_FORMS}; got {shorten(name)}")
        _check_present(name, numbers, gpus)
    # Without a GPU, auto is the CPU pool and nothing else.
    cpu = "cpu" in names or ("auto" in names and not numbers)
    return _Wish(tuple(sorted(numbers)), cpu, "auto" in names)


def _check_present(name: str, numbers: set[int], gpus: Sequence[str]) -> None:
    if name == "cuda" and not gpus:
        raise ConfigError(f"device 'cuda' needs a GPU; {_found(gpus)}")
    if missing := [number for number in numbers if number >= len(gpus)]:
        raise ConfigError(f"device 'cuda:{missing[0]}' is not there; {_found(gpus)}")


def _found(gpus: Sequence[str]) -> str:
    if not gpus:
        return "found none (the driver lists none that CUDA_VISIBLE_DEVICES lets us use)"
    return f"found {len(gpus)}: " + ", ".join(f"cuda:{number} is {gpu}" for number, gpu in enumerate(gpus))


def _divide(wish: _Wish, procs: int, cores: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """(cores of the GPUs' processes, cores of the CPU pool)"""
    if not wish.gpus:
        return (), cores
    if not wish.cpu and not wish.cpu_if_left:
        return cores, ()
    # The CPU pool gets half of them at least, and a core for each of its processes; then each GPU's process one.
    spare = len(cores) - max(procs, len(cores) // 2)
    taken = len(wish.gpus) * max(1, min(CORES_PER_GPU, spare // len(wish.gpus)))
    return cores[:taken], cores[taken:]


def _cpu_processes(device: str, procs: int | None, wish: _Wish, cores: Sequence[int]) -> int:
    if procs is not None and procs < 1:
        raise ConfigError(f"procs must be 1 or more; got {procs}")
    if not wish.cpu and not (wish.cpu_if_left and cores):
        if procs is not None:
            raise ConfigError(f"procs counts CPU processes, of which device '{device}' has none here; got {procs}")
        return 0
    return procs or max(1, len(cores) // CORES_PER_PROCESS)


def _split(cores: Sequence[int], parts: int) -> list[Sequence[int]]:
    """`cores` in `parts` runs of like length: neighbours share caches."""
    return [cores[len(cores) * part // parts : len(cores) * (part + 1) // parts] for part in range(parts)]
