"""Cores under a container's quota, and memory under its limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_worker.devices.cores import cpu_quota, usable_cores
from inference_worker.devices.memory import Memory, host_memory, show_bytes


@pytest.mark.parametrize(("written", "quota"), [("max 100000", None), ("150000 100000", 1.5), ("400000 100000", 4.0)])
def test_a_quota_of_control_groups_version_2_is_read(tmp_path: Path, written: str, quota: float | None) -> None:
    (tmp_path / "cpu.max").write_text(written + "\n")

    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("granted", "quota"), [("-1", None), ("50000", 0.5)])
def test_a_quota_of_control_groups_version_1_is_read(tmp_path: Path, granted: str, quota: float | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(granted + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")

    assert cpu_quota(tmp_path) == quota


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


def test_this_host_has_a_core_at_least() -> None:
    assert len(usable_cores().ids) >= 1


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       8192 kB\nMemFree:        1024 kB\nMemAvailable:   4096 kB\nHugePages_Total:  0\n")
    return path


def test_the_hosts_free_memory_is_what_can_be_had_without_swapping(tmp_path: Path, meminfo: Path) -> None:
    assert host_memory(meminfo, tmp_path) == Memory(4 << 20, 8 << 20)


@pytest.mark.parametrize(
    ("limit", "used"),
    [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")],
)
def test_a_containers_limit_bounds_it(tmp_path: Path, meminfo: Path, limit: str, used: str) -> None:
    for name, value in ((limit, 3 << 20), (used, 1 << 20)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")

    assert host_memory(meminfo, tmp_path) == Memory(2 << 20, 3 << 20)


def test_a_container_without_a_limit_has_the_hosts_memory(tmp_path: Path, meminfo: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")

    assert host_memory(meminfo, tmp_path).total == 8 << 20


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 29, "1.5 GiB"), (50 << 40, "51200.0 GiB")],
)
def test_bytes_are_shown_in_the_unit_that_suits_them(size: int, shown: str) -> None:
    assert show_bytes(size) == shown
