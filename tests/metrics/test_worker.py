"""A real worker, scraped as Prometheus would: its counters say what it did, whatever became of its processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import pytest

from common.broker import Broker
from common.embedded import free_port
from common.errors import InferenceError, WorkerLost
from gateway import Client
from tests.support.command import ROOT, command_line
from tests.support.running import workers
from tests.support.scrape import Scraped, scrape
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    import redis

MODELS = Path(__file__).parents[1] / "support" / "models"
COMMANDS, MORTAL = MODELS / "commands.py", MODELS / "mortal.py"
METERED = ("--device", "cpu", "--procs", "1", "--metrics", ":0")


@dataclass(frozen=True, slots=True)
class Served:
    """A worker with metrics, and a client of it."""

    port: int
    client: Client
    process: subprocess.Popen[bytes]

    def scrape(self, name: str = "", value: float = 0, **labels: str) -> Scraped:
        """As soon as a metric says so: a client may have its answer before the worker has counted that."""
        return wait_until(
            lambda: found if (found := scrape(self.port)).of(name, **labels) == value else None,
            f"{name} with {labels} is {value:g}",
        )


@contextmanager
def measured(redis_url: str, pool: str, models: Path, *options: str, procs: int = 1) -> Iterator[Served]:
    port = free_port()
    more = ("--metrics", f"127.0.0.1:{port}", *options)
    with (
        workers(redis_url, pool, models, procs=procs, options=more) as process,
        Client(redis_url, pool=pool, timeout_s=30) as client,
    ):
        yield Served(port, client, process)


@pytest.fixture(scope="module")
def served(redis_url: str, redis_client: redis.Redis) -> Iterator[Served]:
    """One for all tests that only ask: each a pool's model of its own, or a tenant."""
    pool = "metrics-shared"
    with measured(redis_url, pool, COMMANDS, procs=2) as it:
        yield it
    Broker(redis_client, pool).forget(force=True)


def files_of(served: Served) -> list[str]:
    return sorted(map(str, folder_of(served.process.pid).iterdir()))


def folder_of(supervisor: int) -> Path:
    """Where its processes record: it holds a lock on that."""
    held = (Path(link.readlink()) for link in Path(f"/proc/{supervisor}/fd").iterdir() if link.is_symlink())
    return next(path for path in held if path.name.startswith("inference-worker-metrics-"))


def children(broker: Broker) -> list[int]:
    told: list[Any] = [msgpack.unpackb(one) for one in broker.descriptions() if one]
    return [one["pid"] for one in told if one["state"] == "ready"]


def test_ten_requests_are_ten_on_every_stage_of_their_way(served: Served) -> None:
    for number in range(10):
        served.client.infer("shout", f"text {number}", cache=False, tenant="acme", priority="high")

    pool = {"pool": "metrics-shared"}
    found = served.scrape("inference_worker_request_seconds_count", 10, priority="high", **pool)

    assert found.of("inference_worker_model_requests_total", model="shout", version="1", **pool) == 10
    assert found.of("inference_worker_requests_total", priority="high", **pool) == 10
    assert found.of("inference_worker_request_seconds_count", priority="high", **pool) == 10
    for stage in ("queue", "batch_wait"):
        assert found.of(f"inference_worker_{stage}_seconds_count", model="shout", **pool) == 10
    assert found.of("inference_worker_batch_rows_sum", model="shout", **pool) == 10
    batches = found.of("inference_worker_batches_total", model="shout", **pool)
    assert batches == found.of("inference_worker_compute_seconds_count", model="shout", **pool)
    assert batches == found.of("inference_worker_batch_rows_count", model="shout", **pool)
    assert found.of("inference_worker_tenant_requests_total", tenant="acme", **pool) == 10
    assert found.of("inference_worker_tenant_rows_total", tenant="acme", **pool) == 10
    busy = found.of("inference_worker_busy_seconds_total", **pool)
    assert busy >= found.of("inference_worker_tenant_compute_seconds_total", tenant="acme", **pool) > 0


def test_a_request_that_fails_counts_as_one_under_its_errors_code(served: Served) -> None:
    with pytest.raises(InferenceError):
        served.client.infer("root", np.float32(-1), priority="low")

    found = served.scrape("inference_worker_requests_total", 1, priority="low")

    assert found.of("inference_worker_errors_total", code="model_error") == 1
    assert found.of("inference_worker_model_requests_total", model="root") == 0


def test_a_models_own_stages_are_timed_and_no_others(served: Served) -> None:
    for by in (2, 3):
        served.client.infer("scaled", np.ones(3, np.float32), parameters={"by": by})

    found = served.scrape()

    assert found.of("inference_worker_preprocess_seconds_count", model="scaled") >= 2
    assert found.values("inference_worker_preprocess_seconds_count", "model") == {"scaled"}
    assert found.values("inference_worker_postprocess_seconds_count", "model") == set()


def test_the_models_that_were_loaded_are_told_with_each_step(served: Served) -> None:
    found = served.scrape()

    assert found.values("inference_worker_model_load_seconds_count", "step") == {"import", "load", "warm"}
    # Two processes, and two versions.
    assert found.of("inference_worker_model_load_seconds_count", model="greet", step="load") == 4


def test_what_an_alert_watches_is_there_before_it_first_happens(served: Served) -> None:
    found = served.scrape()

    for name in ("retries", "reclaimed", "lost_leases", "dead_letters", "broker_losses"):
        assert found.values(f"inference_worker_{name}_total", "pool") == {"metrics-shared"}
    assert found.values("inference_worker_exits_total", "reason") == {"stopped", "config", "device", "killed", "failed"}
    assert found.of("inference_worker_processes", state="ready") == 2
    assert found.of("inference_worker_pool_workers", pool="metrics-shared") == 2
    assert found.of("inference_worker_redis_up") == 1
    assert found.of("inference_worker_metrics_failures_total") == 0


def test_a_host_without_a_gpu_tells_of_none(served: Served) -> None:
    assert not any(name.startswith("inference_worker_device_") for name, _, _ in served.scrape().samples)


def test_however_many_names_tenants_and_models_come_with_few_are_shown(served: Served) -> None:
    asked = 300
    for number in range(asked):
        served.client.submit("shout", "x", tenant=f"hostile-{number:03}", cache=False)
        if number % 10 == 0:
            served.client.submit(f"no-such-model-{number}", "x")
    wait_until(
        lambda: served.scrape().of("inference_worker_tenant_requests_total") >= asked, "all tenants' requests ran"
    )

    found = served.scrape()

    assert len(found.values("inference_worker_tenant_requests_total", "tenant")) <= 21
    names = {label for _, having, _ in found.samples for label in having.values()}
    assert not any("no-such-model" in name for name in names)


def test_a_killed_process_has_lost_nothing_and_the_next_one_counts_nothing_twice(
    redis_url: str, pool: str, broker: Broker
) -> None:
    with measured(redis_url, pool, COMMANDS) as served:
        for times in (1, 2):
            for number in range(5):
                served.client.infer("shout", f"text {number}", cache=False)
            [pid] = children(broker)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: children(broker) not in ([], [pid]), "the next process is ready", 30)
            found = served.scrape("inference_worker_model_requests_total", 5 * times, model="shout")
            assert found.of("inference_worker_batch_rows_sum", model="shout") == 5 * times
            assert found.of("inference_worker_exits_total", reason="killed") == times

        [file] = files_of(served)
    assert not Path(file).parent.exists(), "the folder went with the command"


def test_a_request_that_killed_its_worker_is_a_retry_and_at_the_bound_a_dead_letter(
    redis_url: str, pool: str, tmp_path: Path
) -> None:
    with measured(redis_url, pool, MORTAL, "--max-deliveries", "1") as served:
        with pytest.raises(WorkerLost):
            served.client.infer("dies_once", str(tmp_path / "marker"))

        found = served.scrape("inference_worker_dead_letters_total", 1)

        for name in ("retries", "reclaimed", "lost_leases", "dead_letters"):
            assert found.of(f"inference_worker_{name}_total") == 1, name
        assert found.of("inference_worker_errors_total", code="worker_lost") == 1
        assert found.of("inference_worker_exits_total", reason="killed") == 1


def test_a_folder_of_a_supervisor_that_was_killed_is_removed_by_the_next(
    redis_url: str, pool: str, tmp_path: Path
) -> None:
    with command_line(tmp_path) as shell:
        with shell.running("worker", COMMANDS, "--pool", pool, *METERED, INFERENCE_WORKER_BROKER=redis_url) as worker:
            worker.wait_for(" serves ")
            left = folder_of(worker.process.pid)
            worker.stop(signal.SIGKILL)
        wait_until(lambda: not shell.processes(), "its processes ended with it")
        assert left.is_dir()

        with shell.running("worker", COMMANDS, "--pool", pool, *METERED, INFERENCE_WORKER_BROKER=redis_url) as worker:
            worker.wait_for(" serves ")
            assert not left.exists()
            assert worker.stop() == 0


def test_a_port_that_is_taken_is_told_before_a_worker_starts(tmp_path: Path, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, command_line(tmp_path) as shell:
        port = taken.getsockname()[1]
        done = shell.run("worker", COMMANDS, "--broker", redis_url, "--metrics", f":{port}")

    assert (done.code, done.out) == (78, "")
    assert f"metrics cannot be served at 127.0.0.1:{port}: " in done.error


def test_without_prometheus_client_there_is_one_line_that_says_what_to_install(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ModuleNotFoundError(name='prometheus_client')")
    paths = f"{tmp_path}{os.pathsep}{ROOT}"
    with command_line(tmp_path) as shell:
        done = shell.run("worker", COMMANDS, "--broker", redis_url, "--metrics", ":0", PYTHONPATH=paths)

    assert done.code == 78
    assert "pip install 'inference-worker[metrics]'" in done.error


def test_where_metrics_are_off_nothing_of_them_is_imported() -> None:
    code = (
        "import sys, inference_worker.cli.worker, inference_worker.process, inference_worker.worker; "
        "import gateway, gateway.door.deployment, gateway.http.server; "
        "print([name for name in sys.modules if name.startswith(('prometheus_client', 'common.metrics.declared', "
        "'common.metrics.recording', 'inference_worker.metrics'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
