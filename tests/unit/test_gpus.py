"""GPUs as NVML or nvidia-smi tells of them, and as CUDA_VISIBLE_DEVICES masks them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference_worker.devices.gpus import Gpu, nvml_gpus, parse_listing, usable_gpus, visible
from inference_worker.devices.memory import Memory

TWO = [Gpu("GPU-1111-aa"), Gpu("GPU-2222-bb")]


class NvmlError(Exception):
    """As pynvml's base of all errors."""


class Nvml:
    """The functions of `pynvml` that are asked, over GPUs that are written down; None is one that is lost."""

    NVMLError = NvmlError

    def __init__(self, gpus: list[dict[str, Any] | None], broken: bool = False) -> None:
        self._gpus = gpus
        self._broken = broken
        self.opened = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self._broken:
            raise NvmlError("NVML Shared Library Not Found")
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802
        return _there(self._gpus[index])

    def nvmlDeviceGetUUID(self, handle: dict[str, Any]) -> str | bytes:  # noqa: N802
        return handle["uuid"]

    def nvmlDeviceGetName(self, handle: dict[str, Any]) -> str | bytes:  # noqa: N802
        return handle["name"]

    def nvmlDeviceGetMemoryInfo(self, handle: dict[str, Any]) -> Any:  # noqa: N802
        return SimpleNamespace(free=_there(handle.get("free")), total=handle["total"])

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: dict[str, Any]) -> int:  # noqa: N802
        return len(_there(handle.get("slices")))

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: dict[str, Any], index: int) -> dict[str, Any]:  # noqa: N802
        return {"uuid": _there(handle["slices"][index])}


def _there(value: Any) -> Any:
    if value is None:
        raise NvmlError("Not Found")
    return value


def test_nvml_tells_uuid_name_and_memory() -> None:
    nvml = Nvml([{"uuid": "GPU-1111-aa", "name": "NVIDIA A", "free": 3 << 30, "total": 4 << 30}])

    (gpu,) = nvml_gpus(nvml) or ()

    assert (gpu.uuid, gpu.name, gpu.devices) == ("GPU-1111-aa", "NVIDIA A", ("GPU-1111-aa",))
    assert str(gpu.memory) == "3.0 GiB free of 4.0 GiB"
    assert nvml.opened == 0


def test_nvml_tells_of_the_slices_that_are_there() -> None:
    nvml = Nvml([{"uuid": b"GPU-1", "name": b"NVIDIA A", "slices": ["MIG-1", None, "MIG-2"], "free": 1, "total": 2}])

    assert nvml_gpus(nvml) == [Gpu("GPU-1", ("MIG-1", "MIG-2"), "NVIDIA A", Memory(1, 2))]


def test_a_gpu_that_has_fallen_off_the_bus_is_left_out() -> None:
    nvml = Nvml([None, {"uuid": "GPU-2", "name": "NVIDIA B"}])

    assert nvml_gpus(nvml) == [Gpu("GPU-2", name="NVIDIA B")]


def test_without_its_library_nvml_tells_nothing() -> None:
    assert nvml_gpus(Nvml([], broken=True)) is None


def test_a_listing_gives_gpus_by_their_uuid_in_order() -> None:
    text = "GPU 0: NVIDIA A (UUID: GPU-1111-aa)\nGPU 1: NVIDIA B (PCIe) (UUID: GPU-2222-bb)\n"

    assert parse_listing(text) == [Gpu("GPU-1111-aa", name="NVIDIA A"), Gpu("GPU-2222-bb", name="NVIDIA B (PCIe)")]


def test_a_gpu_in_mig_mode_gives_its_slices() -> None:
    text = (
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1111-aa)\n"
        "  MIG 3g.40gb     Device  0: (UUID: MIG-c6d4-1)\n"
        "  MIG 3g.40gb     Device  1: (UUID: MIG-c6d4-2)\n"
        "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-2222-bb)\n"
    )

    assert visible(None, parse_listing(text)) == ["MIG-c6d4-1", "MIG-c6d4-2", "GPU-2222-bb"]


@pytest.mark.parametrize("text", ["", "No devices found.\n", "NVIDIA-SMI has failed because ...\n"])
def test_a_listing_without_gpus_gives_none(text: str) -> None:
    assert parse_listing(text) == []


@pytest.mark.parametrize(
    ("mask", "shown"),
    [
        (None, ["GPU-1111-aa", "GPU-2222-bb"]),
        ("1", ["1"]),
        ("1,0", ["1", "0"]),
        ("GPU-22", ["GPU-22"]),
        ("0,7,1", ["0"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_an_inherited_mask_is_read_as_cuda_reads_it(mask: str | None, shown: list[str]) -> None:
    assert visible(mask, TWO) == shown


@pytest.fixture
def without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pynvml", None)


@pytest.mark.usefixtures("without_nvml")
def test_without_a_driver_no_gpu_is_usable_even_if_the_environment_names_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert usable_gpus({"CUDA_VISIBLE_DEVICES": "0"}) == []


@pytest.mark.usefixtures("without_nvml")
def test_without_nvml_the_program_on_the_path_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A (UUID: GPU-1111-aa)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    assert usable_gpus({}) == ["GPU-1111-aa"]
