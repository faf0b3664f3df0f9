"""The GPUs that we may use: by NVML where nvidia-ml-py is installed, else as `nvidia-smi -L` lists them. No torch."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from inference_worker.devices.memory import Memory

#: A driver that wakes its GPUs takes seconds to list them; one that hangs must not hang the start.
LIST_TIMEOUT_S = 20.0

_GPU = re.compile(r"GPU (\d+): (.*) \(UUID: (GPU-[^)]+)\)")
_SLICE = re.compile(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU with its MIG slices. `memory` is None where only nvidia-smi could be asked."""

    uuid: str
    slices: tuple[str, ...] = ()
    name: str = ""
    memory: Memory | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        """What a process can open: the slices where the GPU is cut into some, else the GPU."""
        return self.slices or (self.uuid,)


def usable_gpus(environ: Mapping[str, str]) -> list[str]:
    """A CUDA_VISIBLE_DEVICES value for each GPU that this process may use, in order; empty without a driver."""
    return visible(environ.get("CUDA_VISIBLE_DEVICES"), list_gpus())


def list_gpus() -> list[Gpu]:
    """All GPUs of this host, in the order of their PCI addresses; empty without a driver."""
    try:
        nvml = import_module("pynvml")
    except ModuleNotFoundError:
        return parse_listing(_ask_nvidia_smi())
    found = nvml_gpus(nvml)
    return parse_listing(_ask_nvidia_smi()) if found is None else found


def nvml_gpus(nvml: Any) -> list[Gpu] | None:
    """The GPUs that NVML (the module `pynvml`) tells of; None where its library does not load or answer.

    A GPU that is lost (Xid 79: it has fallen off the bus) still has a number and no handle: it is left out.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        handles = (_or_none(nvml, nvml.nvmlDeviceGetHandleByIndex, index) for index in range(nvml.nvmlDeviceGetCount()))
        return [_gpu(nvml, handle) for handle in handles if handle is not None]
    except nvml.NVMLError:
        return None
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


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
            gpus.append(Gpu(whole[3], name=whole[2]))
        elif (part := _SLICE.match(line)) and gpus:
            gpus[-1] = replace(gpus[-1], slices=(*gpus[-1].slices, part[1]))
    return gpus


def _gpu(nvml: Any, handle: Any) -> Gpu:
    figures = _or_none(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    return Gpu(
        _text(nvml.nvmlDeviceGetUUID(handle)),
        tuple(_slices(nvml, handle)),
        _text(nvml.nvmlDeviceGetName(handle)),
        None if figures is None else Memory(int(figures.free), int(figures.total)),
    )


def _slices(nvml: Any, handle: Any) -> Iterator[str]:
    """The UUIDs of a GPU's MIG slices. One that knows no MIG answers with an error."""
    for index in range(_or_none(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        # There may be seven of them; places that hold none answer with an error as well.
        part = _or_none(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        if part is not None:
            yield _text(nvml.nvmlDeviceGetUUID(part))


def _or_none(nvml: Any, ask: Any, *arguments: Any) -> Any:
    try:
        return ask(*arguments)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    # nvidia-ml-py gives bytes before version 12.
    return value.decode() if isinstance(value, bytes) else value


def _present(entry: str, gpus: Sequence[Gpu]) -> bool:
    if entry.isdecimal():
        return int(entry) < len(gpus)
    # CUDA takes the beginning of a UUID for the whole.
    names = [name for gpu in gpus for name in (gpu.uuid, *gpu.slices)]
    return bool(entry) and any(name.startswith(entry) for name in names)


def _ask_nvidia_smi() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        listing = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=LIST_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        # A driver in that state serves no work either: the same as no GPU, and `cuda` says that it found none.
        return ""
    return listing.stdout if listing.returncode == 0 else ""
