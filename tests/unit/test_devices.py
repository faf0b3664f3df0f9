"""GPUs as nvidia-smi lists them and CUDA_VISIBLE_DEVICES masks them; cores under a container's quota."""

from __future__ import annotations

import pytest

from inference_worker.devices import Gpu, cpu_quota, parse_listing, usable_cores, usable_gpus, visible

TWO = [Gpu("GPU-1111-aa"), Gpu("GPU-2222-bb")]


def test_a_listing_gives_gpus_by_their_uuid_in_order():
    text = "GPU 0: NVIDIA A (UUID: GPU-1111-aa)\nGPU 1: NVIDIA B (PCIe) (UUID: GPU-2222-bb)\n"

    assert parse_listing(text) == TWO


def test_a_gpu_in_mig_mode_gives_its_slices():
    text = (
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1111-aa)\n"
        "  MIG 3g.40gb     Device  0: (UUID: MIG-c6d4-1)\n"
        "  MIG 3g.40gb     Device  1: (UUID: MIG-c6d4-2)\n"
        "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-2222-bb)\n"
    )

    assert visible(None, parse_listing(text)) == ["MIG-c6d4-1", "MIG-c6d4-2", "GPU-2222-bb"]


@pytest.mark.parametrize("text", ["", "No devices found.\n", "NVIDIA-SMI has failed because ...\n"])
def test_a_listing_without_gpus_gives_none(text):
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
def test_an_inherited_mask_is_read_as_cuda_reads_it(mask, shown):
    assert visible(mask, TWO) == shown


def test_without_a_driver_no_gpu_is_usable_even_if_the_environment_names_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert usable_gpus({"CUDA_VISIBLE_DEVICES": "0"}) == []


def test_a_driver_is_asked_through_the_program_on_the_path(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A (UUID: GPU-1111-aa)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    assert usable_gpus({}) == ["GPU-1111-aa"]


@pytest.mark.parametrize(("written", "quota"), [("max 100000", None), ("150000 100000", 1.5), ("400000 100000", 4.0)])
def test_a_quota_of_control_groups_version_2_is_read(tmp_path, written, quota):
    (tmp_path / "cpu.max").write_text(written + "\n")

    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("granted", "quota"), [("-1", None), ("50000", 0.5)])
def test_a_quota_of_control_groups_version_1_is_read(tmp_path, granted, quota):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(granted + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")

    assert cpu_quota(tmp_path) == quota


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cpu_quota(tmp_path) is None


def test_this_host_has_a_core_at_least():
    assert len(usable_cores().ids) >= 1
