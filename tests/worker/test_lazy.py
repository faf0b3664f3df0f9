"""Models that are loaded when they are asked for, and go when others need their memory: real workers, real requests."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from common.connect import connect
from common.errors import ModelUnavailable
from gateway import Client
from gateway.admin.manage import Manager
from gateway.admin.pools import Admin
from tests.support.command import command_line
from tests.support.running import workers
from tests.support.scaling import write_scaling
from tests.support.waiting import wait_until

MB = 1_000_000
#: Declared, so that only the budget decides: what a process is seen to grow by depends on the machine.
FIVE_MB = '[placement]\nmemory = "5MB"\n'
PINNED = '[placement]\nmemory = "5MB"\npinned = true\n'


@pytest.fixture
def manager(redis_url: str) -> Iterator[Manager]:
    client = connect(redis_url)
    yield Manager(client)
    client.close()


def stats(redis_url: str, pool: str) -> dict[str, Any]:
    """What the pool's worker says of itself, once it has."""

    def about() -> dict[str, Any]:
        (status,) = Admin(client).snapshot([pool]).pools
        [worker] = [worker for worker in status.workers if worker.live]
        return dict(worker.about)

    client = connect(redis_url)
    try:
        return wait_until(lambda: about() if "loads" in about() else {}, "the worker has told its counts")
    finally:
        client.close()


def test_twenty_models_share_a_budget_of_six_and_no_request_fails(redis_url: str, pool: str, tmp_path: Path) -> None:
    for number in range(20):
        write_scaling(tmp_path, pool, "1", number, name=f"m{number}", size=5 * MB, more=FIVE_MB)
    random.seed(5)
    asked = [random.randrange(20) for _ in range(400)]

    with (
        workers(redis_url, pool, tmp_path, options=("--memory-budget", "30MB")),
        Client(redis_url, pool=pool, timeout_s=60) as client,
        ThreadPoolExecutor(16) as callers,
    ):
        answers = list(callers.map(lambda number: float(client.infer(f"m{number}", 2.0)["output"]), asked))
        assert answers == [2.0 * number for number in asked]
        wait_until(lambda: stats(redis_url, pool)["evictions"] > 20, "models have come and gone")
        about = stats(redis_url, pool)

    assert about["model_bytes"] <= 30 * MB
    assert about["failed"] == 0


def test_a_model_is_loaded_when_it_is_first_asked_for_and_is_published_before(
    redis_url: str, pool: str, tmp_path: Path
) -> None:
    write_scaling(tmp_path, pool, "1", 3, more="cache_ttl = 60")
    with workers(redis_url, pool, tmp_path, options=("--lazy",)), Client(redis_url, pool=pool) as client:
        assert stats(redis_url, pool)["models"] == ["scale:1"]
        assert stats(redis_url, pool)["loads"] == 0
        # Its digest is known before it is loaded: the first answer is kept, and the second comes from there.
        assert [client.infer("scale", 1.0).cached for _ in range(2)] == [False, True]
        wait_until(lambda: stats(redis_url, pool)["loads"] == 1, "it was loaded once")


def test_pinned_models_are_loaded_at_the_start_and_never_evicted(redis_url: str, pool: str, tmp_path: Path) -> None:
    write_scaling(tmp_path, pool, "1", 1, name="pinned", more=PINNED)
    for name in ("a", "b"):
        write_scaling(tmp_path, pool, "1", 2, name=name, more=FIVE_MB)
    options = ("--lazy", "--memory-budget", "10MB")

    with workers(redis_url, pool, tmp_path, options=options), Client(redis_url, pool=pool) as client:
        assert stats(redis_url, pool)["loads"] == 1
        for name in ("a", "b", "a", "pinned"):
            client.infer(name, 1.0)
        wait_until(lambda: stats(redis_url, pool)["loads"] == 4, "only the others came and went")


def test_those_who_ask_while_a_model_loads_wait_and_others_requests_go_on(
    redis_url: str, pool: str, tmp_path: Path
) -> None:
    write_scaling(tmp_path, pool, "1", 1, name="quick")
    gate, entered = tmp_path / "gate", tmp_path / "entered"
    slow = write_scaling(tmp_path, pool, "1", 2, name="slow")
    code = (slow / "model.py").read_text()
    waits = f"import pathlib, time\nif True:\n    pathlib.Path({str(entered)!r}).touch()\n"
    waits += f"    while not pathlib.Path({str(gate)!r}).exists():\n        time.sleep(0.01)\n"
    (slow / "model.py").write_text(waits + code)

    with workers(redis_url, pool, tmp_path, options=("--lazy",)), Client(redis_url, pool=pool) as client:
        client.infer("quick", 1.0)
        waiting = [client.submit("slow", float(number), timeout=60) for number in range(20)]
        wait_until(entered.exists, "it loads")
        for number in range(20):
            assert float(client.infer("quick", float(number))["output"]) == number
        wait_until(lambda: stats(redis_url, pool)["waiting"] == 20, "they wait in the worker")
        gate.touch()

        assert [float(handle.result()["output"]) for handle in waiting] == [2.0 * number for number in range(20)]
        wait_until(lambda: stats(redis_url, pool)["loads"] == 2, "it was loaded once for all of them")


def test_two_models_that_are_asked_for_at_once_load_at_once(redis_url: str, pool: str, tmp_path: Path) -> None:
    # Given two models, each of which is there only when the other one has begun to load
    begun = {name: tmp_path / f"{name}-begun" for name in ("one", "other")}
    for factor, (name, beside) in enumerate((("one", "other"), ("other", "one")), 1):
        folder = write_scaling(tmp_path, pool, "1", factor, name=name, more=FIVE_MB)
        code = (folder / "model.py").read_text()
        waits = f"import pathlib, time\npathlib.Path({str(begun[name])!r}).touch()\n"
        waits += f"while not pathlib.Path({str(begun[beside])!r}).exists():\n    time.sleep(0.01)\n"
        (folder / "model.py").write_text(waits + code)

    with (
        workers(redis_url, pool, tmp_path, options=("--lazy", "--memory-budget", "10MB")),
        Client(redis_url, pool=pool) as client,
    ):
        handles = [client.submit(name, 1.0, timeout=60) for name in begun]

        assert [float(handle.result()["output"]) for handle in handles] == [1, 2]
        wait_until(lambda: stats(redis_url, pool)["loads"] == 2, "each was loaded once")
        assert stats(redis_url, pool)["model_bytes"] == 10 * MB


def test_status_shows_what_is_in_memory_and_what_was_evicted_lately(redis_url: str, pool: str, tmp_path: Path) -> None:
    # Given a budget for one of two models, both of which were asked for
    for name in ("one", "other"):
        write_scaling(tmp_path / "models", pool, "1", 1, name=name, more=FIVE_MB)
    with (
        workers(redis_url, pool, tmp_path / "models", options=("--lazy", "--memory-budget", "6MB")),
        Client(redis_url, pool=pool) as client,
        command_line(tmp_path) as shell,
    ):
        for name in ("one", "other"):
            client.infer(name, 1.0)
        wait_until(lambda: stats(redis_url, pool)["evictions"] == 1, "one has gone")

        shown = shell.run("status", "--broker", redis_url, "--pool", pool, "--interval", "1")
        told = shell.run("status", "--broker", redis_url, "--pool", pool, "--interval", "1", "--json")

    assert (
        "memory: 4.8 MiB of 5.7 MiB for models: other:1 4.8 MiB; evicted in the last 10 min: one:1 1 time" in shown.out
    )
    (worker,) = json.loads(told.out)["pools"][0]["workers"]
    about = worker["about"]
    assert (about["budget"], about["in_memory"], about["evicted"]) == (6 * MB, {"other:1": 5 * MB}, {"one:1": 1})


def test_what_fits_into_no_budget_is_refused_with_figures_and_the_others_are_served(
    redis_url: str, pool: str, tmp_path: Path
) -> None:
    write_scaling(tmp_path, pool, "1", 1, name="small", more=FIVE_MB)
    write_scaling(tmp_path, pool, "1", 1, name="large", more='[placement]\nmemory = "50MiB"\n')

    with (
        workers(redis_url, pool, tmp_path, options=("--memory-budget", "20MiB")),
        Client(redis_url, pool=pool) as client,
    ):
        with pytest.raises(ModelUnavailable) as caught:
            client.infer("large", 1.0)
        assert "model 'large:1' needs 50.0 MiB: more than the whole memory budget of 20.0 MiB" in str(caught.value)
        assert float(client.infer("small", 2.0)["output"]) == 2


def test_a_failed_load_answers_all_who_waited_and_is_not_tried_for_each(
    redis_url: str, pool: str, tmp_path: Path
) -> None:
    broken, tries = write_scaling(tmp_path, pool, "1", 1, name="broken"), tmp_path / "tries"
    (broken / "model.py").write_text(f"open({str(tries)!r}, 'a').write('x')\nraise OSError('no disk')\n")

    with workers(redis_url, pool, tmp_path, options=("--lazy",)), Client(redis_url, pool=pool) as client:
        handles = [client.submit("broken", float(number)) for number in range(50)]
        for handle in handles:
            with pytest.raises(ModelUnavailable, match=r"'broken:1' cannot be loaded: .*OSError: no disk"):
                handle.result()
    assert len(tries.read_text()) <= 2


def test_a_reload_that_does_not_fit_beside_the_old_one_says_so_first_and_can_be_swapped(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager
) -> None:
    write_scaling(tmp_path, pool, "1", 1, more='[placement]\nmemory = "15MiB"\n')
    with (
        workers(redis_url, pool, tmp_path, options=("--memory-budget", "20MiB")),
        Client(redis_url, pool=pool) as client,
    ):
        write_scaling(tmp_path, pool, "1", 2, more='[placement]\nmemory = "15MiB"\n')

        [report] = manager.give(pool, "reload", "scale", "1")

        assert (
            "model 'scale:1' beside the one that it replaces (--swap unloads that first) needs 15.0 MiB and can have "
            "5.0 MiB: the memory budget is 20.0 MiB, of which models that stay take 15.0 MiB" in report.error
        )
        assert float(client.infer("scale", 1.0)["output"]) == 1
        [report] = manager.give(pool, "reload", "scale", "1", swap=True)
        assert report.ok
        assert float(client.infer("scale", 1.0)["output"]) == 2


def test_a_pinned_model_that_does_not_fit_is_a_configuration_error(redis_url: str, pool: str, tmp_path: Path) -> None:
    write_scaling(tmp_path, pool, "1", 1, more=PINNED)
    with (
        pytest.raises(AssertionError, match="the workers ended with 78"),
        workers(redis_url, pool, tmp_path, options=("--memory-budget", "1MB")),
    ):
        pass
