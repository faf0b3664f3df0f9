"""Orders that are none of the models' business: levels of logs, and profiles, of workers that run."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from common.broker import Broker
from common.keys import POOLS
from gateway import Client
from tests.support.command import MODELS, CommandLine, Done
from tests.support.leaks import keys_of
from tests.support.running import workers

if TYPE_CHECKING:
    import redis

TORCH_MODEL = """
import torch

from inference_worker import model


@model(inputs={"x": "FP32[4]"})
def twice(x):
    return (torch.from_numpy(x) * 2).numpy()
"""


@pytest.fixture(scope="module")
def pair(redis_url: str, redis_client: redis.Redis) -> Iterator[str]:
    """A pool with two workers."""
    pool = f"errands-{uuid4().hex[:8]}"
    with workers(redis_url, pool, MODELS, procs=2):
        yield pool
    redis_client.delete(*keys_of(redis_client, pool))
    redis_client.srem(POOLS, pool)


def names(redis_client: redis.Redis, pool: str) -> list[str]:
    return sorted(name.decode() for name in redis_client.hkeys(Broker(redis_client, pool).keys.workers))


def run(shell: CommandLine, redis_url: str, *arguments: str) -> Done:
    return shell.run(*arguments, INFERENCE_WORKER_BROKER=redis_url)


def test_each_worker_of_a_pool_answers_to_another_log_level(
    shell: CommandLine, redis_url: str, redis_client: redis.Redis, pair: str
) -> None:
    loud = run(shell, redis_url, "logs", "level", pair, "debug", "--logger", "inference_worker.intake")
    quiet = run(shell, redis_url, "logs", "level", pair, "error", "--logger", "inference_worker.intake", "--json")

    assert loud.out.splitlines() == [f"{one}: logs from debug on (was info)" for one in names(redis_client, pair)]
    assert loud.error == f"log inference_worker.intake from debug on in pool '{pair}': 2 of 2 workers"
    assert [(one["ok"], one["note"]) for one in json.loads(quiet.out)] == [(True, "was debug")] * 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("logs", "level", "nowhere-pool", "debug"),
            "pool 'nowhere-pool' has no worker that could log all from debug on",
        ),
        (("logs", "level", "p", "debug", "--logger", "a b"), "a logger's name is up to 128 letters"),
        (("profile", "nobody-1-0-0"), "there is no worker 'nobody-1-0-0': "),
    ],
)
def test_what_cannot_be_ordered_is_said(
    shell: CommandLine, redis_url: str, pair: str, arguments: tuple[str, ...], told: str
) -> None:
    done = run(shell, redis_url, *arguments)

    assert done.code != 0
    assert told in done.error


def test_torchs_profile_of_a_worker_without_torch_is_refused_with_the_other_way(
    shell: CommandLine, redis_url: str, redis_client: redis.Redis, pair: str
) -> None:
    done = run(shell, redis_url, "profile", names(redis_client, pair)[0], "--kind", "torch", "--seconds", "0.2")

    assert "this worker runs no torch, so torch's profiler sees nothing: use --kind py-spy" in done.err


@pytest.fixture(scope="module")
def alone(redis_url: str, redis_client: redis.Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pool with one worker, which computes by torch."""
    pool, file = f"errands-{uuid4().hex[:8]}", tmp_path_factory.mktemp("errands") / "m.py"
    file.write_text(TORCH_MODEL)
    with workers(redis_url, pool, file):
        yield pool
    redis_client.delete(*keys_of(redis_client, pool))
    redis_client.srem(POOLS, pool)


def profiled(shell: CommandLine, redis_url: str, pool: str, name: str, *options: str) -> Any:
    """What `profile` writes of a worker that works meanwhile, and says of it."""
    with (
        Client(redis_url, pool=pool) as client,
        shell.running("profile", name, *options, INFERENCE_WORKER_BROKER=redis_url) as it,
    ):
        while it.process.poll() is None:
            list(client.map("twice", [[1.0, 2.0, 3.0, 4.0]] * 100))
        assert it.process.returncode == 0, it.printed
    return it.printed


def test_py_spys_profile_opens_in_speedscope(
    shell: CommandLine, redis_url: str, redis_client: redis.Redis, alone: str
) -> None:
    [name] = names(redis_client, alone)
    said = profiled(shell, redis_url, alone, name, "--seconds", "1", "--output", "p.json")

    assert "p.json: open it at https://www.speedscope.app" in said
    profile = json.loads((shell.folder / "p.json").read_text())
    assert any("inference_worker/" in (frame["file"] or "") for frame in profile["shared"]["frames"])


def test_torchs_profile_holds_the_operations_of_the_thread_that_runs_models(
    shell: CommandLine, redis_url: str, redis_client: redis.Redis, alone: str
) -> None:
    [name] = names(redis_client, alone)
    said = profiled(shell, redis_url, alone, name, "--kind", "torch", "--seconds", "0.3")

    assert f"{name}-torch.json.gz: open it at https://ui.perfetto.dev" in said
    trace: dict[str, Any] = json.loads(gzip.decompress((shell.folder / f"{name}-torch.json.gz").read_bytes()))
    assert "aten::mul" in {event.get("name") for event in trace["traceEvents"]}
