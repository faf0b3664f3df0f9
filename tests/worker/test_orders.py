"""Models that an operator loads, unloads and reloads while they are served: real workers, real requests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event

import msgpack
import pytest

from common.broker import Broker
from common.connect import connect
from common.errors import ConfigError, ModelNotFound
from common.orders import Order, Report, decode_order, encode
from gateway import Client
from gateway.admin.manage import NO_ANSWER, Manager
from gateway.admin.pools import Admin
from inference_worker.host_cache import CACHE_VARIABLE
from inference_worker.models.library import Library
from inference_worker.models.loader import Loader
from inference_worker.models.loading import Opener
from inference_worker.models.registry import Title
from inference_worker.models.spec import ModelSpec
from inference_worker.models.unloads import served_again
from inference_worker.remote.options import TRUST_VARIABLE
from inference_worker.supervision.child import COMMAND, Child, start
from inference_worker.supervision.restarts import Restarts
from inference_worker.supervision.slot import Slot
from tests.support.repositories import write_index
from tests.support.running import workers
from tests.support.scaling import CODE, write_scaling
from tests.support.supervised import plans
from tests.support.waiting import wait_until

CACHED = "cache_ttl = 60"


@pytest.fixture
def manager(redis_url: str) -> Iterator[Manager]:
    client = connect(redis_url)
    yield Manager(client)
    client.close()


def ask(redis_url: str, pool: str, x: float = 1.0, version: str | None = None) -> float:
    """The answer to a client that knows nothing yet."""
    with Client(redis_url, pool=pool) as client:
        return float(client.infer("scale", x, version=version)["output"])


def done(reports: list[Report]) -> list[tuple[bool, str]]:
    assert all(report.ok == (not report.error) for report in reports)
    return [(report.ok, report.error) for report in reports]


@contextmanager
def traffic(redis_url: str, pool: str) -> Iterator[list[float]]:
    """Two callers who ask without end, each time for something new; their answers. None may fail."""
    answers: list[float] = []
    stop = Event()

    def call() -> None:
        with Client(redis_url, pool=pool) as client:
            while not stop.is_set():
                answers.append(float(client.infer("scale", 1.0)["output"]))

    with ThreadPoolExecutor() as pool_of_callers:
        callers = [pool_of_callers.submit(call) for _ in range(2)]
        wait_until(lambda: len(answers) > 20, "requests are answered")
        try:
            yield answers
        finally:
            stop.set()
            for caller in callers:
                caller.result(20)


def test_a_version_that_was_copied_into_the_repository_is_loaded_and_becomes_the_default(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager
) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    with workers(redis_url, pool, tmp_path, procs=2):
        write_scaling(tmp_path, pool, "2", 2)
        with pytest.raises(ModelNotFound):
            ask(redis_url, pool, version="2")

        reports = manager.give(pool, "load", "scale", "2")

        assert done(reports) == [(True, "")] * 2
        assert [report.models for report in reports] == [("scale:2",)] * 2
        assert {report.index for report in reports} == {0, 1}
        assert all(report.memory > 10_000_000 for report in reports)
        assert ask(redis_url, pool) == 2
        assert ask(redis_url, pool, version="1") == 1


def test_an_unloaded_version_is_not_found_and_the_next_older_one_is_the_default(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager
) -> None:
    for version in ("1", "2"):
        write_scaling(tmp_path, pool, version, int(version))
    with workers(redis_url, pool, tmp_path):
        assert ask(redis_url, pool) == 2

        assert done(manager.give(pool, "unload", "scale", "2")) == [(True, "")]

        assert ask(redis_url, pool) == 1
        with pytest.raises(ModelNotFound, match="has no version '2' here; there is 1"):
            ask(redis_url, pool, version="2")
        assert done(manager.give(pool, "load", "scale", None)) == [(True, "")]
        assert ask(redis_url, pool) == 2


def test_of_orders_that_reach_a_process_together_each_is_obeyed(redis_url: str, pool: str, tmp_path: Path) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    (plan,) = plans(pool, paths=(str(tmp_path),))
    common = {"broker": redis_url, "max_deliveries": 3, "reply_ttl_s": 60.0}
    child = start(COMMAND, plan.placement, Slot(plan, "owner", "host", Restarts()).config(common), os.environ)
    try:
        # It reads them after its configuration, and all at once.
        for number in range(2):
            child.send({"do": "obey", "order": asdict(Order(f"order-{number}", "load", "scale"))})

        told: list[str] = []
        wait_until(lambda: told.extend(_obeyed(child)) or len(told) == 2, "both are obeyed")
        assert told == ["order-0", "order-1"]
    finally:
        child.kill()
        child.close()


def _obeyed(child: Child) -> list[str]:
    return [line["order"] for line in child.read() if line["is"] == "obeyed"]


def test_the_last_model_of_a_pool_can_be_unloaded_and_is_published_no_more(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager
) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    broker = Broker(connect(redis_url), pool)
    with workers(redis_url, pool, tmp_path):
        manager.give(pool, "unload", "scale", None)

        assert broker.models() == {}
        assert done(manager.give(pool, "unload", "scale", None)) == [
            (False, "no model 'scale' is served here; there is none")
        ]
        manager.give(pool, "load", "scale", "1")
        assert ask(redis_url, pool) == 1


def test_no_request_fails_while_a_model_is_reloaded_again_and_again(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager
) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    with workers(redis_url, pool, tmp_path, procs=2), traffic(redis_url, pool) as answers:
        for factor in (2, 3, 4, 5):
            write_scaling(tmp_path, pool, "1", factor)
            assert done(manager.give(pool, "reload", "scale", "1")) == [(True, "")] * 2
            before = len(answers)
            wait_until(lambda before=before: len(answers) > before + 20, "requests go on")

            assert set(answers[before + 4 :]) == {factor}


def test_no_request_fails_while_a_model_is_swapped(redis_url: str, pool: str, tmp_path: Path, manager: Manager) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    with workers(redis_url, pool, tmp_path), traffic(redis_url, pool) as answers:
        write_scaling(tmp_path, pool, "1", 2)

        assert done(manager.give(pool, "reload", "scale", "1", swap=True)) == [(True, "")]

        wait_until(lambda: answers[-1] == 2, "the new one answers")


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("model.py", "raise OSError('no disk')\n", "model.py:1 cannot be imported: OSError: no disk"),
        ("model.py", "def Scale(x):\n    return x[1:]\n", "returned 0 rows of 'output' for a batch of 1"),
        ("weights.npy", "", "load of model 'scale:2' failed: EOFError"),
    ],
)
def test_a_roll_out_that_fails_is_refused_and_the_old_one_stays(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager, file: str, text: str, told: str
) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    with workers(redis_url, pool, tmp_path), traffic(redis_url, pool) as answers:
        broken = write_scaling(tmp_path, pool, "2", 2)
        (broken / file).write_text(text)

        [(ok, error)] = done(manager.give(pool, "reload", "scale", None))

        assert not ok
        assert told in error
        assert error.endswith("; what was served before is served as it was")
    assert set(answers) == {1}


def test_a_python_file_is_imported_anew(redis_url: str, pool: str, tmp_path: Path, manager: Manager) -> None:
    file = tmp_path / "scale.py"
    text = "from inference_worker import model\n\n@model\ndef scale(x):\n    return x * FACTOR\n"
    file.write_text(text.replace("FACTOR", "1"))
    with workers(redis_url, pool, file):
        assert ask(redis_url, pool) == 1
        file.write_text(text.replace("FACTOR", "2"))

        assert done(manager.give(pool, "reload", "scale", None)) == [(True, "")]

        assert ask(redis_url, pool) == 2


def test_an_alias_moves_to_the_new_version(redis_url: str, pool: str, tmp_path: Path, manager: Manager) -> None:
    write_scaling(tmp_path, pool, "1", 1, more='aliases = ["prod"]')
    with workers(redis_url, pool, tmp_path):
        write_scaling(tmp_path, pool, "1", 1)
        write_scaling(tmp_path, pool, "2", 2, more='aliases = ["prod"]')

        manager.give(pool, "load", "scale", "prod")

        assert ask(redis_url, pool, version="prod") == 2


def test_a_reload_of_all_versions_takes_away_those_that_are_no_longer_there(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager
) -> None:
    for version in ("1", "2"):
        write_scaling(tmp_path, pool, version, int(version))
    with workers(redis_url, pool, tmp_path):
        (tmp_path / "scale" / "2").rename(tmp_path.parent / f"{tmp_path.name}-gone")

        [report] = manager.give(pool, "reload", "scale", None)

        assert report.models == ("scale:1", "scale:2")
        assert ask(redis_url, pool) == 1


def test_a_reload_never_answers_from_the_cache_of_the_old_weights(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager
) -> None:
    write_scaling(tmp_path, pool, "1", 1, more=CACHED)
    with workers(redis_url, pool, tmp_path), Client(redis_url, pool=pool) as old:
        # Given a cached answer, and a client that knows these weights
        assert [old.infer("scale", 5.0).cached for _ in range(2)] == [False, True]
        # When the model is reloaded with others
        write_scaling(tmp_path, pool, "1", 2, more=CACHED)
        manager.give(pool, "reload", "scale", "1")
        # Then who knows of it is never answered from the old ones' results
        with Client(redis_url, pool=pool) as new:
            first = new.infer("scale", 5.0)
            assert (float(first["output"]), first.cached) == (10, False)
            assert new.infer("scale", 5.0).cached
        # And what the client with the old catalog asks for is computed by the new ones, and kept under no id of the old
        for _ in range(2):
            answer = old.infer("scale", 6.0)
            assert (float(answer["output"]), answer.cached) == (12, False)
        # And within seconds it knows of them too
        wait_until(lambda: float(old.infer("scale", 5.0)["output"]) == 10, "the old client has learned of it", 8)


def test_a_child_that_is_restarted_offers_what_it_offered_before(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager
) -> None:
    for version in ("1", "2"):
        write_scaling(tmp_path, pool, version, int(version))
    with workers(redis_url, pool, tmp_path):
        # Given that a version was unloaded, and that a broken one lies there whose roll-out was refused
        manager.give(pool, "unload", "scale", "2")
        (write_scaling(tmp_path, pool, "3", 3) / "weights.npy").write_text("")
        assert done(manager.give(pool, "load", "scale", "3"))[0][0] is False
        # When the process dies
        [worker] = _live(redis_url, pool)
        os.kill(int(str(worker["pid"])), signal.SIGKILL)
        # Then the one after it serves the same
        assert ask(redis_url, pool) == 1
        wait_until(lambda: [one["models"] for one in _live(redis_url, pool)] == [["scale:1"]], "it says so", 20)


def test_a_supervisor_that_starts_anew_does_not_serve_what_was_unloaded_until_it_is_loaded_again(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager
) -> None:
    for version in ("1", "2"):
        write_scaling(tmp_path, pool, version, int(version))
    with workers(redis_url, pool, tmp_path):
        # Given that a bad version was unloaded
        with workers(redis_url, pool, tmp_path):
            assert done(manager.give(pool, "unload", "scale", "2")) == [(True, "")] * 2
        # When a supervisor starts anew, whose folder has it still
        with workers(redis_url, pool, tmp_path):
            # Then it is served nowhere, and this shows
            assert [one["models"] for one in _live(redis_url, pool)] == [["scale:1"]] * 2
            assert ask(redis_url, pool) == 1
            assert _unloaded(redis_url, pool) == ("scale:2",)
            # And a load brings it back
            assert done(manager.give(pool, "load", "scale", "2")) == [(True, "")] * 2
            assert ask(redis_url, pool) == 2
            assert _unloaded(redis_url, pool) == ()


def test_a_process_that_could_not_ask_what_was_unloaded_offers_it_no_more_when_it_knows() -> None:
    library = Library()
    library.offer("scale", [Title(ModelSpec("scale", version, "python"), "") for version in ("1", "2")])
    loader = Loader(library, Opener("cpu", 1), lambda scope: [], lambda: None, lambda obeyed: None)

    loader.hold_back({"scale:2", "other:1"})

    assert [title.key for title in library.registry.list()] == [("scale", "1")]


@pytest.mark.parametrize(
    ("do", "version", "changed", "again"),
    [
        ("load", "2", (), {"m:2"}),
        ("load", None, (), {"m:1", "m:2"}),
        ("reload", "prod", ("m:1",), {"m:1"}),
        ("load", "3", ("m:3",), set()),
    ],
)
def test_a_load_brings_back_what_it_names_and_what_it_changed(
    do: str, version: str | None, changed: tuple[str, ...], again: set[str]
) -> None:
    report = Report("id", "w", "h", 0, True, models=changed)

    assert served_again(Order("id", do, "m", version), report, ["m:1", "m:2", "n:1"]) == again


def test_a_model_that_a_restarted_child_cannot_load_is_told_to_its_callers_and_the_others_are_served(
    redis_url: str, pool: str, tmp_path: Path
) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    write_scaling(tmp_path, pool, "1", 7, name="other")
    with workers(redis_url, pool, tmp_path):
        (tmp_path / "other" / "1" / "weights.npy").write_text("")
        [worker] = _live(redis_url, pool)
        os.kill(int(str(worker["pid"])), signal.SIGKILL)

        assert ask(redis_url, pool) == 1
        with (
            Client(redis_url, pool=pool) as client,
            pytest.raises(Exception, match="'other:1' cannot be loaded: load of"),
        ):
            client.infer("other", 1.0)


def test_the_workers_of_two_supervisors_answer(redis_url: str, pool: str, tmp_path: Path, manager: Manager) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    with workers(redis_url, pool, tmp_path, procs=2), workers(redis_url, pool, tmp_path):
        write_scaling(tmp_path, pool, "2", 2)

        reports = manager.give(pool, "load", "scale", "2")

        assert done(reports) == [(True, "")] * 3
        assert len({report.worker for report in reports}) == 3


def test_a_worker_that_is_lost_meanwhile_gives_no_answer_and_is_not_waited_for_until_the_end(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager
) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    with workers(redis_url, pool, tmp_path):
        # Given a worker that loads for ever
        endless, entered = write_scaling(tmp_path, pool, "2", 2), tmp_path / "entered"
        (endless / "model.py").write_text(
            f"import pathlib, time\n\npathlib.Path({str(entered)!r}).touch()\ntime.sleep(600)\n"
        )
        with ThreadPoolExecutor() as operator:
            answers = operator.submit(manager.give, pool, "load", "scale", "2", timeout_s=100)
            wait_until(entered.exists, "it loads")
            # When it dies
            [worker] = _live(redis_url, pool)
            os.kill(int(str(worker["pid"])), signal.SIGKILL)
            # Then the operator hears that it is lost
            assert done(answers.result(30)) == [(False, NO_ANSWER)]


def test_a_pool_without_workers_is_told(manager: Manager, pool: str) -> None:
    with pytest.raises(ConfigError, match=f"pool '{pool}' has no worker that could load model 'scale:2'"):
        manager.give(pool, "load", "scale", "2")


def _unloaded(redis_url: str, pool: str) -> tuple[str, ...]:
    client = connect(redis_url)
    (status,) = Admin(client).snapshot([pool]).pools
    client.close()
    return status.unloaded


def _live(redis_url: str, pool: str) -> list[dict[str, object]]:
    client = connect(redis_url)
    (status,) = Admin(client).snapshot([pool]).pools
    client.close()
    return [dict(worker.about) for worker in status.workers if worker.live]


@pytest.mark.parametrize(
    "path", ["half/1/model.toml", "whole/v 3/model.toml", "scale/2/model.toml"], ids=["half", "name", "beside"]
)
def test_what_is_broken_beside_a_version_does_not_stop_an_order_about_it(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager, path: str
) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    with workers(redis_url, pool, tmp_path):
        write_scaling(tmp_path, pool, "1", 2)
        _write_half(tmp_path / path)

        assert done(manager.give(pool, "reload", "scale", "1")) == [(True, "")]

        assert ask(redis_url, pool) == 2


def test_a_broken_version_stops_an_order_about_it_and_about_all_versions(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager
) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    with workers(redis_url, pool, tmp_path):
        _write_half(tmp_path / "scale" / "2" / "model.toml")

        for version in ("2", None):
            [(ok, error)] = done(manager.give(pool, "load", "scale", version))
            assert not ok
            assert "scale/2/model.toml" in error
        assert ask(redis_url, pool) == 1


def test_a_process_that_starts_again_passes_over_what_was_broken_beside_its_models(
    redis_url: str, pool: str, tmp_path: Path
) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    with workers(redis_url, pool, tmp_path):
        _write_half(tmp_path / "half" / "1" / "model.toml")
        [worker] = _live(redis_url, pool)
        os.kill(int(str(worker["pid"])), signal.SIGKILL)

        assert ask(redis_url, pool) == 1


def test_a_worker_that_ends_or_starts_again_meanwhile_answers_once(redis_url: str, pool: str, manager: Manager) -> None:
    # Given a worker of which two generations still have a lease
    client = connect(redis_url)
    broker = Broker(client, pool)
    for name in ("host-7-0-0", "host-7-0-1"):
        client.zadd(broker.keys.leases, {name: 2**50})
        client.hset(broker.keys.workers, name, msgpack.packb({"host": "host", "index": 0}))
    with ThreadPoolExecutor() as operator:
        answers = operator.submit(manager.give, pool, "load", "scale", "1", timeout_s=20)
        wait_until(lambda: broker.orders_after(b"0-0"), "the order is given")
        # When it answers under the name of its next one
        [(_, data)] = broker.orders_after(b"0-0")
        order = decode_order(data)
        broker.tell(order.inbox, encode(Report(order.id, "host-7-0-2", "host", 0, False, "this worker is draining")))
        # Then that is its one answer
        assert done(answers.result(10)) == [(False, "this worker is draining")]
    client.delete(broker.keys.leases, broker.keys.workers)
    client.close()


def test_a_reload_from_the_cached_copy_of_a_repository_that_is_away_says_so(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    folder = tmp_path / "models"
    write_scaling(folder, pool, "1", 1)
    write_index(folder)
    with workers(redis_url, pool, f"file://{folder}"):
        [there] = manager.give(pool, "reload", "scale", "1")
        folder.rename(tmp_path / "unmounted")

        [away] = manager.give(pool, "reload", "scale", "1")
        [unknown] = manager.give(pool, "load", "scale", "2")

    assert (there.ok, there.note) == (True, "")
    assert away.ok
    assert away.note.startswith("there are no files at file://")
    assert away.note.endswith("; its copy in the cache is used")
    assert "; its copy in the cache is used)" in unknown.error


@pytest.mark.parametrize("place", ["import", "load"])
def test_no_exception_of_a_models_code_ends_the_loader(
    redis_url: str, pool: str, tmp_path: Path, manager: Manager, place: str
) -> None:
    write_scaling(tmp_path, pool, "1", 1)
    with workers(redis_url, pool, tmp_path):
        code = write_scaling(tmp_path, pool, "2", 2) / "model.py"
        stop = "    raise KeyboardInterrupt('no')\n"
        code.write_text(
            f"if True:\n{stop}" if place == "import" else CODE.replace("        self.weights", f"    {stop}#")
        )

        [(ok, error)] = done(manager.give(pool, "load", "scale", "2"))

        assert not ok
        assert f"{place}" in error
        assert "KeyboardInterrupt: no" in error
        assert ask(redis_url, pool) == 1


def test_models_whose_close_fails_do_not_disturb_a_drain(redis_url: str, pool: str, tmp_path: Path) -> None:
    # Given models that write what they do at their close, and exit
    closed = tmp_path / "closed"
    for name in ("one", "other"):
        code = write_scaling(tmp_path / "models", pool, "1", 1, name=name) / "model.py"
        close = f"        open({str(closed)!r}, 'a').write('{name} ')\n        raise SystemExit(3)\n"
        code.write_text(f"{CODE}\n    def close(self):\n{close}")
    # When their worker drains, then it ends as any other
    with workers(redis_url, pool, tmp_path / "models") as supervisor:
        pass
    assert supervisor.returncode == 0
    assert sorted(closed.read_text().split()) == ["one", "other"]


def _write_half(manifest: Path) -> None:
    manifest.parent.mkdir(parents=True)
    manifest.write_text('backend = "pyth')
