"""What GPUs do at this moment, as NVML tells it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from inference_worker.devices.readings import GpuReadings, gpu_readings

GIB = 2**30


class NvmlError(Exception):
    """As pynvml's base of all errors."""


class Nvml:
    """The functions of `pynvml` that are asked, over one GPU that is written down; what is left out has no answer."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, broken: bool = False, **answers: Any) -> None:
        self._broken = broken
        self._answers = answers
        self.opened = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self._broken:
            raise NvmlError("Driver Not Loaded")
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.opened -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> bytes:  # noqa: N802
        return self._answer("uuid", uuid)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> bytes:  # noqa: N802
        return self._answer("index", index)

    def nvmlDeviceGetMemoryInfo(self, handle: bytes) -> Any:  # noqa: N802
        return self._answer("memory")

    def nvmlDeviceGetUtilizationRates(self, handle: bytes) -> Any:  # noqa: N802
        return self._answer("use")

    def nvmlDeviceGetTemperature(self, handle: bytes, sensor: int) -> int:  # noqa: N802
        return self._answer("heat")

    def _answer(self, question: str, wanted: object = None) -> Any:
        if question not in self._answers or wanted not in (None, self._answers[question]):
            raise NvmlError("Not Supported")
        return self._answers[question]


def told(nvml: Nvml, name: str = "GPU-1") -> dict[str, float]:
    found = GpuReadings(nvml, [("cuda:0", name)])()
    assert nvml.opened == 0
    assert all(one.labels == ("cuda:0", name) for one in found)
    return {one.metric.name.removeprefix("inference_worker_device_"): one.cells[0] for one in found}


MEMORY = SimpleNamespace(total=80 * GIB, free=50 * GIB)


@pytest.mark.parametrize(("name", "known"), [("GPU-1", {"uuid": b"GPU-1"}), ("3", {"index": 3})])
def test_a_gpu_is_found_by_what_cuda_visible_devices_calls_it(name: str, known: dict[str, Any]) -> None:
    nvml = Nvml(**known, memory=MEMORY, use=SimpleNamespace(gpu=85), heat=61)

    assert told(nvml, name) == {
        "memory_used_bytes": 30 * GIB,
        "memory_total_bytes": 80 * GIB,
        "utilisation_ratio": 0.85,
        "temperature_celsius": 61,
    }


def test_what_a_mig_slice_does_not_tell_is_left_out() -> None:
    assert told(Nvml(uuid=b"MIG-1", memory=MEMORY), "MIG-1").keys() == {"memory_used_bytes", "memory_total_bytes"}


def test_a_gpu_that_has_fallen_off_the_bus_tells_nothing() -> None:
    assert told(Nvml()) == {}


def test_a_driver_that_is_gone_tells_nothing() -> None:
    assert told(Nvml(broken=True)) == {}


def test_where_there_is_no_gpu_none_is_asked() -> None:
    assert gpu_readings([]) is None


def test_the_real_module_on_a_host_without_its_driver_tells_nothing() -> None:
    pytest.importorskip("pynvml", reason="needs the extra cuda")
    readings = gpu_readings([("cuda:0", "GPU-00000000-0000-0000-0000-000000000000")])

    assert readings is not None
    assert readings() == []
