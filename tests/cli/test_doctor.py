"""`doctor`: each check says what it found, what that means, and what to do; the exit code says whether all works."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from common.embedded import EmbeddedRedis
from gateway.admin.pools import PoolStatus, WorkerStatus
from inference_worker.cli.doctor import devices, host, models, pools, server
from inference_worker.cli.doctor.finding import Finding, Severity
from inference_worker.devices.cores import Cores
from inference_worker.devices.gpus import Gpu
from inference_worker.devices.memory import Memory
from tests.support.command import CommandLine
from tests.support.model_folders import python_function

OK, NOTE, WARNING, ERROR = Severity
GB = 10**9
SOUND: dict[str, Any] = {
    "redis_version": "7.2.4", "role": "master", "aof_enabled": 1, "aof_last_write_status": "ok",
    "maxmemory": 8 * GB, "maxmemory_policy": "noeviction", "used_memory": GB,
    "connected_clients": 10, "maxclients": 10_000, "total_system_memory": 16 * GB,
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "info", "severity", "told"),
    [
        (server.version, {}, OK, "7.2.4"),
        (server.version, {"redis_version": "6.0.16"}, ERROR, "Redis must be 6.2 or newer"),
        (server.role, {}, OK, "master"),
        (server.role, {"role": "slave"}, ERROR, "replica"),
        (server.persistence, {}, OK, "append-only"),
        (server.persistence, {"aof_enabled": 0}, WARNING, "no append-only file"),
        (server.persistence, {"aof_last_write_status": "err"}, ERROR, "cannot be written"),
        (server.persistence, {"aof_enabled": 0, "rdb_last_bgsave_status": "err"}, ERROR, "last snapshot failed"),
        (server.eviction, {}, OK, "noeviction"),
        (server.eviction, {"maxmemory_policy": "allkeys-lru"}, ERROR, "allkeys-lru"),
        (server.eviction, {"maxmemory": 0}, WARNING, "no maxmemory"),
        (server.memory, {}, OK, "1000 of 8000 MB"),
        (server.memory, {"used_memory": 7.8 * GB}, WARNING, "nearly full"),
        (server.memory, {"used_memory": 8 * GB}, ERROR, "full"),
        (server.memory, {"maxmemory": 0, "used_memory": 14 * GB}, WARNING, "of its host's"),
        (server.clients, {}, OK, "10 of 10000"),
        (server.clients, {"connected_clients": 9_000}, WARNING, "9000 of 10000"),
    ],
)
def test_of_the_server(check: Any, info: dict[str, Any], severity: Severity, told: str) -> None:
    found: Finding = check({**SOUND, **info})

    assert (found.severity, told in found.what) == (severity, True), found
    assert bool(found.do) == (severity > OK), "whatever is wrong says what to do"


@pytest.mark.parametrize(
    ("samples", "severity"), [([0.1] * 200, OK), ([5.0] * 200, WARNING), ([0.1] * 190 + [80.0] * 10, WARNING)]
)
def test_of_the_latency(samples: list[float], severity: Severity) -> None:
    assert server.latency(samples).severity is severity


@pytest.mark.parametrize(
    ("off_s", "took_s", "severity", "told"),
    [
        (0.0, 0.001, OK, "within"),
        (-90.0, 0.001, WARNING, "ahead of"),
        (90.0, 0.001, WARNING, "behind"),
        (1.5, 3.0, OK, ""),
    ],
)
def test_of_the_clock(off_s: float, took_s: float, severity: Severity, told: str) -> None:
    found = server.clock(int((1000.0 + off_s) * 1000), 1000.0 - took_s / 2, 1000.0 + took_s / 2)

    assert found.severity is severity
    assert told in found.what


HERE = host.Host(
    Cores((0, 1, 2, 3), True),
    4,
    (65_536, 65_536),
    Memory(8 * GB, 16 * GB),
    Path("/cache"),
    Memory(50 * GB, 100 * GB),
    {},
)


@pytest.mark.parametrize(
    ("check", "change", "severity", "told"),
    [
        (host.cores, {}, OK, "4 of 4"),
        (host.cores, {"cores": Cores((0, 1), False)}, NOTE, "2 of 4 by a CPU quota"),
        (host.threads, {"environment": {"OMP_NUM_THREADS": "64"}}, NOTE, "OMP_NUM_THREADS=64"),
        (host.files, {}, OK, "65536"),
        (host.files, {"files": (256, 1024)}, WARNING, "up to 256"),
        (host.memory, {"memory": Memory(GB // 4, 16 * GB)}, WARNING, "free of"),
        (host.memory, {"memory": None}, NOTE, "does not tell"),
        (host.disk, {}, OK, "/cache"),
        (host.disk, {"disk": Memory(GB, 100 * GB)}, WARNING, "free of"),
        (host.disk, {"disk": Memory(GB // 10, 100 * GB)}, ERROR, "free of"),
    ],
)
def test_of_the_host(check: Any, change: dict[str, Any], severity: Severity, told: str) -> None:
    found: Finding = check(replace(HERE, **change))

    assert (found.severity, told in found.what) == (severity, True), found


GPU = Gpu("GPU-1", name="H100", memory=Memory(70 * GB, 80 * GB))
CUDA = {"torch": "2.13.0", "cuda": "12.8", "gpus": 1, "onnxruntime": "1.32", "providers": ["CUDAExecutionProvider"]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, {"gpus": OK, "gpu 0 memory": OK, "torch": OK, "onnxruntime": OK}),
        ({"gpus": [], "shown": [], "hardware": True}, {"gpus": ERROR, "torch": OK, "onnxruntime": OK}),
        ({"gpus": [], "shown": [], "hardware": False}, {"gpus": OK, "torch": OK, "onnxruntime": OK}),
        ({"shown": [], "mask": "-1"}, {"gpus": WARNING, "gpu 0 memory": OK, "torch": OK, "onnxruntime": OK}),
        (
            {"libraries": {**CUDA, "cuda": None, "gpus": 0, "providers": ["CPUExecutionProvider"]}},
            {"gpus": OK, "gpu 0 memory": OK, "torch": ERROR, "onnxruntime": NOTE},
        ),
        ({"libraries": {**CUDA, "gpus": 0}}, {"gpus": OK, "gpu 0 memory": OK, "torch": ERROR, "onnxruntime": OK}),
        ({"libraries": None, "trouble": "it hangs"}, {"gpus": OK, "gpu 0 memory": OK, "libraries": ERROR}),
        ({"libraries": {}, "nvml": False}, {"gpus": NOTE, "gpu 0 memory": OK, "libraries": NOTE}),
    ],
)
def test_of_the_devices(change: dict[str, Any], told: dict[str, Severity]) -> None:
    sound = devices.Devices([GPU], ["GPU-1"], None, True, True, CUDA)

    assert {one.check: one.severity for one in devices.findings(replace(sound, **change))} == told


def worker(name: str, lease_left_ms: int = 9_000, **about: Any) -> WorkerStatus:
    return WorkerStatus(name, lease_left_ms, {"state": "ready", "models": ["m:1"], "heard_ms": 0, **about})


def pool(*workers: WorkerStatus, **more: Any) -> PoolStatus:
    status = PoolStatus("gpu", {"high": 0, "normal": 0, "low": 0}, 0, None, {}, 0, workers, (), {}, 0)
    return replace(status, **more)


@pytest.mark.parametrize(
    ("status", "severities", "told"),
    [
        (pool(worker("a")), [OK], "1 workers"),
        (
            pool(backlog={"high": 0, "normal": 5, "low": 0}, oldest_ms=1),
            [ERROR],
            "5 requests wait, and no worker is ready",
        ),
        (pool(worker("a"), backlog={"high": 0, "normal": 5, "low": 0}, oldest_ms=60_000), [WARNING], "60 s old"),
        (pool(worker("a", lease_left_ms=-3_000)), [WARNING], "its lease ran out 3 s ago"),
        (pool(worker("a", state="crash looping", error="no\x1b module")), [ERROR], "crash looping: no module"),
        (pool(worker("a", restarts=2)), [WARNING], "started again 2 times"),
        (pool(worker("a", heard_ms=1, running="m:1")), [WARNING], "silent for 100 s, at m:1"),
        (pool(worker("a"), worker("b", models=["m:2"])), [WARNING], "a has m:1; b has m:2"),
        (pool(worker("a"), dead_letters=3), [WARNING], "3 dead letters"),
    ],
)
def test_of_the_pools(status: PoolStatus, severities: list[Severity], told: str) -> None:
    found = list(pools.findings([status], 100_001))

    assert [one.severity for one in found] == severities
    assert told in found[0].what


def test_each_broken_model_of_a_repository_is_found_beside_the_sound_ones(tmp_path: Path) -> None:
    folders = {name: python_function(tmp_path / name).folder for name in ("good", "typo", "lost")}
    for name, folder in folders.items():
        assert folder is not None
        shutil.move(folder, tmp_path / f"{name}-one" / "1")
        shutil.rmtree(tmp_path / name)
        (tmp_path / f"{name}-one").rename(tmp_path / name)
    with (tmp_path / "typo" / "1" / "model.toml").open("r+") as manifest:
        text = manifest.read()
        manifest.seek(0)
        manifest.write(f"colour = 'red'\n{text}")
    (tmp_path / "lost" / "1" / "m.py").unlink()

    found = {one.check.partition(":")[0]: one for one in models.findings(str(tmp_path))}
    assert {name: one.severity for name, one in found.items()} == {
        "model good": OK, "model typo": ERROR, "model lost": ERROR,
    }  # fmt: skip
    assert "colour" in found["model typo"].what


def test_all_of_it_on_a_broker_with_workers_ends_with_zero(served: CommandLine) -> None:
    done = served.run("doctor", "--json", "--no-devices")

    found = {one["check"]: one for one in json.loads(done.out)}
    assert done.code == 0, done.err
    assert {"redis version", "redis latency", "clock", "pool default-pool", "open files"} <= found.keys()
    assert found["pool default-pool"]["severity"] == "ok"


def test_without_a_broker_the_host_is_looked_at_and_the_end_is_an_error(shell: CommandLine) -> None:
    done = shell.run("doctor", "--no-devices", "--broker", "redis://127.0.0.1:1")

    assert done.code == 1
    assert done.out.startswith("error   redis: no broker answers at redis://127.0.0.1:1")
    assert "        → start it, or name another one by --broker" in done.out
    assert "open files: " in done.out


def test_a_broker_that_refuses_the_password_is_not_to_be_started(shell: CommandLine) -> None:
    with EmbeddedRedis() as server:
        redis.Redis.from_url(server.url).config_set("requirepass", "right")
        shown = shell.run("doctor", "--no-devices", "--broker", server.url)
        served = shell.run("gateway", "--http", "127.0.0.1:0", "--broker", server.url)

    assert (shown.code, served.code) == (1, 78)
    assert "        → mend the URL in --broker or INFERENCE_WORKER_BROKER" in shown.out
    assert "Redis refuses the user, the password" in served.err
