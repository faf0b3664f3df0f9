"""What GPUs do at this moment, for dashboards: memory, use and heat, by NVML. Nothing on a host without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from common.metrics.declared import DEVICE_BUSY, DEVICE_HEAT, DEVICE_TOTAL, DEVICE_USED, Sample, sample

#: How a supervisor calls a GPU ("cuda:1"), and its UUID or number, or a MIG slice's UUID.
Named = tuple[str, str]


class GpuReadings:
    """A source of samples. `nvml` is the module `pynvml`; a question that a GPU does not answer is left out."""

    def __init__(self, nvml: Any, gpus: Sequence[Named]) -> None:
        self._nvml = nvml
        self._gpus = gpus

    def __call__(self) -> list[Sample]:
        nvml = self._nvml
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            return []
        try:
            return [one for gpu in self._gpus for one in self._read(*gpu)]
        finally:
            with suppress(nvml.NVMLError):
                nvml.nvmlShutdown()

    def _read(self, device: str, name: str) -> Iterator[Sample]:
        nvml = self._nvml
        handle = self._ask(_handle, nvml, name)
        if handle is None:
            return
        if (memory := self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)) is not None:
            yield sample(DEVICE_USED, int(memory.total) - int(memory.free), device, name)
            yield sample(DEVICE_TOTAL, int(memory.total), device, name)
        # A MIG slice has neither of its own.
        if (use := self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)) is not None:
            yield sample(DEVICE_BUSY, use.gpu / 100, device, name)
        if (heat := self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)) is not None:
            yield sample(DEVICE_HEAT, heat, device, name)

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except self._nvml.NVMLError:
            return None


def gpu_readings(gpus: Sequence[Named]) -> GpuReadings | None:
    """None where there are no GPUs, or the package nvidia-ml-py is not installed (the extra `cuda`)."""
    if not gpus:
        return None
    try:
        return GpuReadings(import_module("pynvml"), gpus)
    except ModuleNotFoundError:
        return None


def _handle(nvml: Any, name: str) -> Any:
    if name.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    return nvml.nvmlDeviceGetHandleByUUID(name.encode())
