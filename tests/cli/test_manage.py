"""`models load`, `unload` and `reload`: what they print, and their exit codes."""

from __future__ import annotations

import json

import pytest

from tests.support.command import CommandLine
from tests.support.running import workers
from tests.support.scaling import write_scaling


def test_each_workers_result_is_printed_and_the_next_request_sees_it(
    shell: CommandLine, redis_url: str, pool: str
) -> None:
    models = shell.folder / "models"
    write_scaling(models, pool, "1", 1)
    broker = {"INFERENCE_WORKER_BROKER": redis_url}
    with workers(redis_url, pool, models, procs=2):
        write_scaling(models, pool, "2", 2)

        done = shell.run("models", "load", "scale:2", "--pool", pool, **broker)
        again = shell.run("models", "load", "scale:2", "--pool", pool, "--json", **broker)
        listed = json.loads(shell.run("models", "list", "--json", **broker).out)

    assert done.code == 0
    first, second = done.out.splitlines()
    assert "-0-0: scale:2 in " in first
    assert "-1-0: scale:2 in " in second
    assert first.endswith(" MiB resident")
    assert done.err == f"load scale:2 in pool '{pool}': 2 of 2 workers\n"
    assert again.code == 0
    assert [(one["ok"], one["models"]) for one in json.loads(again.out)] == [(True, []), (True, [])]
    assert sorted(one["version"] for one in listed if one["pool"] == pool) == ["1", "2"]


def test_the_pool_is_found_by_the_model(shell: CommandLine, redis_url: str, pool: str) -> None:
    models, name = shell.folder / "models", f"only-{pool}"
    write_scaling(models, pool, "1", 1, name=name)
    with workers(redis_url, pool, models):
        done = shell.run("models", "reload", name, "--swap", INFERENCE_WORKER_BROKER=redis_url)

    assert done.code == 0
    assert done.err == f"reload {name} in pool '{pool}': 1 of 1 workers\n"


def test_it_exits_with_0_only_if_all_succeeded(shell: CommandLine, redis_url: str, pool: str) -> None:
    models = shell.folder / "models"
    write_scaling(models, pool, "1", 1)
    with workers(redis_url, pool, models):
        done = shell.run("models", "unload", "scale:9", "--pool", pool, INFERENCE_WORKER_BROKER=redis_url)

    assert done.code == 1
    assert done.out.endswith("-0-0: model 'scale' has no version '9' here; there is 1\n")


@pytest.mark.parametrize("verb", ["load", "unload", "reload"])
def test_a_pool_without_workers_is_a_configuration_error(
    shell: CommandLine, redis_url: str, pool: str, verb: str
) -> None:
    done = shell.run("models", verb, "scale", "--pool", pool, INFERENCE_WORKER_BROKER=redis_url)

    assert done.code == 78
    assert f"pool '{pool}' has no worker that could {verb} model 'scale'" in done.error


@pytest.mark.parametrize("seconds", ["604801", "1e30"])
def test_a_timeout_that_is_none_is_refused(shell: CommandLine, redis_url: str, pool: str, seconds: str) -> None:
    models = shell.folder / "models"
    write_scaling(models, pool, "1", 1)
    with workers(redis_url, pool, models):
        done = shell.run(
            "models", "load", "scale", "--pool", pool, "--timeout", seconds, INFERENCE_WORKER_BROKER=redis_url
        )

    assert done.code == 65
    assert "timeout must be over 0 and at most 604800 s" in done.error
