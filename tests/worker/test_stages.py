"""Stages beside the runner, in real workers: pre- and postprocess in threads and in processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from common.broker import Broker
from common.connect import connect
from common.errors import DeadlineExceeded, InferenceError, InvalidRequest, ModelError
from gateway import Client, Handle
from gateway.admin.manage import Manager
from gateway.admin.pools import Admin, WorkerStatus
from inference_worker.backends import open_model
from inference_worker.worker import HOLD_ROWS
from tests.support.model_folders import make_model, one_line, refusal
from tests.support.running import workers
from tests.support.waiting import wait_until

MANIFEST = """
backend = "python"

[python]
code = "model.py:double"

[processing]
code = "stages.py:Stages"
notes = "NOTES"

[batch]
rows = 4

[[inputs]]
name = "x"
dtype = "FP32"
shape = []

[[outputs]]
name = "y"
dtype = "FP32"
shape = []

[sample]
x = 0.0
"""
MODEL = "def double(x):\n    return {'y': x * 2}\n"
#: A request's parameters say what a stage does with it. Each stage writes down in which process it ran.
STAGES = """
import os
import time
from pathlib import Path

from inference_worker import InvalidRequest


def act(notes, step, what):
    (notes / f"{step}.{os.getpid()}").touch()
    match what:
        case "fail":
            raise ValueError("no")
        case "refuse":
            raise InvalidRequest("not this one")
        case "note":
            (notes / "noted").touch()
        case "wait":
            while not (notes / "go").exists():
                time.sleep(0.005)
        case "die":
            os._exit(3)
        case "die once" if not (notes / "died").exists():
            (notes / "died").touch()
            os._exit(3)


class Stages:
    def load(self, context):
        self.notes = Path(context.spec.processing["notes"])

    def preprocess(self, request):
        act(self.notes, "preprocess", request.parameters.get("preprocess"))
        return {"x": request.inputs["x"] + 1}

    def postprocess(self, outputs, request):
        act(self.notes, "postprocess", request.parameters.get("postprocess"))
        return {"y": outputs["y"] + 0.5}
"""
kinds = pytest.mark.parametrize("kind", ["threads", "processes"])
steps = pytest.mark.parametrize("step", ["preprocess", "postprocess"])


def stages(kind: str, count: int = 2) -> str:
    return "".join(
        f"[stages.{step}]\nworkers = {count}\nprocesses = {str(kind == 'processes').lower()}\n"
        for step in ("preprocess", "postprocess")
    )


def write_model(folder: Path, pool: str, more: str, timeout: int = 20) -> Path:
    """The model `staged` of y = 2 * (x + 1) + 0.5 in `folder`/staged; where its stages write their notes."""
    model, notes = folder / "staged" / "1", folder / "notes"
    model.mkdir(parents=True)
    notes.mkdir()
    (model / "model.toml").write_text(f'pool = "{pool}"\ntimeout = {timeout}\n{manifest(notes)}\n{more}')
    (model / "model.py").write_text(MODEL)
    (model / "stages.py").write_text(STAGES)
    return notes


def manifest(notes: Path) -> str:
    return MANIFEST.replace("NOTES", str(notes))


@contextmanager
def serving(redis_url: str, pool: str, models: Path) -> Iterator[Client]:
    with workers(redis_url, pool, models / "staged"), Client(redis_url, pool=pool) as client:
        yield client


def answers(handles: Iterable[Handle]) -> list[float | InferenceError]:
    return [answer(handle) for handle in handles]


def answer(handle: Handle) -> float | InferenceError:
    try:
        return float(handle.result()["y"])
    except InferenceError as error:
        return error


def told(redis_url: str, pool: str) -> WorkerStatus:
    """What the pool's one worker says of itself."""
    return Admin(connect(redis_url)).snapshot([pool]).pools[0].workers[0]


def waiting(redis_url: str, pool: str) -> dict[str, int]:
    found: dict[str, int] = told(redis_url, pool).about.get("stages", {})
    return found


def held(redis_url: str, pool: str) -> int:
    return len(Broker(connect(redis_url), pool).held(told(redis_url, pool).name))


def go(notes: Path) -> None:
    (notes / "go").touch()


def when(condition: Callable[[], object], then: Callable[[], None]) -> Thread:
    """A thread that waits for the condition and does `then`, to be joined."""

    def wait() -> None:
        wait_until(condition, "it becomes true while the workers end")
        then()

    thread = Thread(target=wait)
    thread.start()
    return thread


def processes_of(notes: Path, step: str) -> set[int]:
    return {int(path.suffix[1:]) for path in notes.glob(f"{step}.*")}


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@kinds
def test_each_request_goes_through_all_stages_and_gets_its_own_result(
    redis_url: str, pool: str, tmp_path: Path, kind: str
) -> None:
    write_model(tmp_path, pool, stages(kind))
    with serving(redis_url, pool, tmp_path) as client:
        found = answers([client.submit("staged", float(number)) for number in range(100)])
    assert found == [2 * (number + 1) + 0.5 for number in range(100)]


@steps
def test_quick_requests_pass_a_slow_one_that_is_in_the_same_stage(
    redis_url: str, pool: str, tmp_path: Path, step: str
) -> None:
    notes = write_model(tmp_path, pool, stages("threads"))
    with serving(redis_url, pool, tmp_path) as client:
        slow = client.submit("staged", 0.0, parameters={step: "wait"})

        assert answers([client.submit("staged", float(number)) for number in range(20)])[-1] == 40.5
        assert not slow.done()

        go(notes)
        assert answer(slow) == 2.5


@steps
def test_what_waits_for_a_stage_takes_room_so_that_the_rest_stays_for_other_workers(
    redis_url: str, pool: str, tmp_path: Path, step: str
) -> None:
    notes = write_model(tmp_path, pool, stages("threads"))
    with serving(redis_url, pool, tmp_path) as client:
        # Given a stage whose two threads come to no end
        handles = [client.submit("staged", 0.0, parameters={step: "wait"}) for _ in range(4 * HOLD_ROWS)]
        wait_until(lambda: sum(waiting(redis_url, pool).values()) > HOLD_ROWS // 2, "requests wait for the stage")
        # Then no more is taken than is held and runs beside it
        wait_until(lambda: held(redis_url, pool) >= HOLD_ROWS, "the worker is full")
        assert held(redis_url, pool) < 2 * HOLD_ROWS
        assert waiting(redis_url, pool).keys() == {f"staged:1 {step}"}
        go(notes)
        assert answers(handles) == [2.5] * len(handles)


@kinds
@steps
def test_an_error_in_a_stage_is_its_own_requests_alone(
    redis_url: str, pool: str, tmp_path: Path, step: str, kind: str
) -> None:
    write_model(tmp_path, pool, stages(kind))
    with serving(redis_url, pool, tmp_path) as client:
        whats = ["", "fail", "refuse", ""]
        found = answers([client.submit("staged", 0.0, parameters={step: what}) for what in whats])
    assert found[0] == found[3] == 2.5
    assert isinstance(found[1], ModelError)
    assert str(found[1]) == f"{step} of model 'staged:1' failed: ValueError: no"
    assert isinstance(found[2], InvalidRequest)
    assert str(found[2]) == "not this one"


def test_a_stage_does_not_begin_with_what_is_overdue(redis_url: str, pool: str, tmp_path: Path) -> None:
    notes = write_model(tmp_path, pool, stages("threads", 1))
    with serving(redis_url, pool, tmp_path) as client:
        slow = client.submit("staged", 0.0, parameters={"preprocess": "wait"})
        late = client.submit("staged", 0.0, parameters={"preprocess": "note"}, timeout=0.2)
        assert isinstance(answer(late), DeadlineExceeded)
        go(notes)
        assert answers([slow, client.submit("staged", 0.0)]) == [2.5, 2.5]
    assert not (notes / "noted").exists()


def test_a_drain_hands_back_what_no_stage_has_begun_with(redis_url: str, pool: str, tmp_path: Path) -> None:
    notes = write_model(tmp_path, pool, stages("threads", 1))
    with Client(redis_url, pool=pool) as client:
        with workers(redis_url, pool, tmp_path / "staged"):
            whats = ["wait", *["note"] * 5]
            handles = [client.submit("staged", 0.0, parameters={"preprocess": what}) for what in whats]
            wait_until(lambda: waiting(redis_url, pool) == {"staged:1 preprocess": 5}, "all but one wait")
            drained = when(lambda: held(redis_url, pool) == 1, lambda: go(notes))
        drained.join()
        # Then nothing was begun that waited, and the next worker answers all
        assert not (notes / "noted").exists()
        with workers(redis_url, pool, tmp_path / "staged"):
            assert answers(handles) == [2.5] * 6


def test_a_drain_finishes_what_is_in_postprocess(redis_url: str, pool: str, tmp_path: Path) -> None:
    notes = write_model(tmp_path, pool, stages("threads", 1))
    with Client(redis_url, pool=pool) as client:
        with workers(redis_url, pool, tmp_path / "staged"):
            handles = [client.submit("staged", 0.0, parameters={"postprocess": "wait"}) for _ in range(4)]
            wait_until(lambda: waiting(redis_url, pool) == {"staged:1 postprocess": 3}, "all but one wait")
            drained = when(lambda: told(redis_url, pool).about["state"] == "draining", lambda: go(notes))
        drained.join()
        assert answers(handles) == [2.5] * 4


@steps
def test_a_request_whose_process_ends_once_is_tried_again(redis_url: str, pool: str, tmp_path: Path, step: str) -> None:
    notes = write_model(tmp_path, pool, stages("processes"))
    with serving(redis_url, pool, tmp_path) as client:
        assert answer(client.submit("staged", 0.0, parameters={step: "die once"})) == 2.5
        assert len(processes_of(notes, step)) >= 2


@steps
def test_a_request_that_ends_its_process_fails_alone(redis_url: str, pool: str, tmp_path: Path, step: str) -> None:
    notes = write_model(tmp_path, pool, stages("processes"))
    with serving(redis_url, pool, tmp_path) as client:
        handles = [client.submit("staged", 0.0, parameters={step: what}) for what in ("", "die", "", "")]
        found = answers([*handles, *(client.submit("staged", 0.0) for _ in range(8))])
        assert isinstance(error := found.pop(1), ModelError)
        assert "its process ended with exit code 3, twice with this request" in str(error)
        assert found == [2.5] * 11
        parents = {parent_of(pid) for pid in processes_of(notes, step) if lives(pid)}
    assert len(parents) == 1


def test_a_stage_that_takes_longer_than_the_timeout_is_ended(redis_url: str, pool: str, tmp_path: Path) -> None:
    write_model(tmp_path, pool, stages("processes", 1), timeout=1)
    with serving(redis_url, pool, tmp_path) as client:
        error = answer(client.submit("staged", 0.0, parameters={"preprocess": "wait"}))
        assert str(error) == "preprocess of model 'staged:1' took longer than the model's timeout of 1 s"
        assert answer(client.submit("staged", 0.0)) == 2.5


def test_processes_of_stages_end_with_a_worker_that_is_killed(redis_url: str, pool: str, tmp_path: Path) -> None:
    notes = write_model(tmp_path, pool, stages("processes"))
    with serving(redis_url, pool, tmp_path) as client:
        assert answers(client.submit("staged", 0.0) for _ in range(8)) == [2.5] * 8
        old = processes_of(notes, "preprocess") | processes_of(notes, "postprocess")
        os.kill(parent_of(min(old)), signal.SIGKILL)
        wait_until(lambda: not any(map(lives, old)), "they have ended")
        assert answer(client.submit("staged", 0.0)) == 2.5


def test_a_reload_ends_the_old_processes_and_fails_no_request(redis_url: str, pool: str, tmp_path: Path) -> None:
    notes = write_model(tmp_path, pool, stages("processes"))
    with serving(redis_url, pool, tmp_path) as client:
        slow = client.submit("staged", 0.0, parameters={"preprocess": "wait"})
        wait_until(lambda: held(redis_url, pool) == 1, "it is in its stage")
        old = processes_of(notes, "preprocess") | processes_of(notes, "postprocess")
        (tmp_path / "staged" / "1" / "stages.py").write_text(STAGES.replace("+ 0.5", "+ 0.25"))

        assert Manager(connect(redis_url)).give(pool, "reload", "staged", None)[0].error == ""

        assert answer(client.submit("staged", 0.0)) == 2.25
        assert not slow.done()
        go(notes)
        assert answer(slow) == 2.5
        wait_until(lambda: not any(map(lives, old)), "the old processes have ended")


def test_a_process_is_not_started_again_with_other_code_than_its_model_was_loaded_with(
    redis_url: str, pool: str, tmp_path: Path
) -> None:
    write_model(tmp_path, pool, stages("processes", 1))
    with serving(redis_url, pool, tmp_path) as client:
        (tmp_path / "staged" / "1" / "stages.py").write_text(STAGES.replace("+ 0.5", "+ 0.25"))
        error = answer(client.submit("staged", 0.0, parameters={"preprocess": "die"}))
    assert "the model's files have changed since it was loaded; reload the model" in str(error)


def test_code_that_does_not_load_in_its_process_is_told_as_elsewhere(tmp_path: Path) -> None:
    code = STAGES.replace("self.notes =", "raise OSError('no vocabulary') #")
    spec = make_model(tmp_path, f"{MANIFEST}\n{stages('processes')}", {"model.py": MODEL, "stages.py": code})
    with pytest.raises(ModelError) as caught:
        open_model(spec, "cpu", 1)
    assert one_line(caught) == "load of model 'double:1' failed: OSError: no vocabulary"


def test_a_stage_with_workers_must_be_defined(tmp_path: Path) -> None:
    files = {"model.py": MODEL, "stages.py": STAGES.replace("def postprocess", "def later")}
    message = refusal(tmp_path, f"{MANIFEST}\n{stages('processes')}", files)
    assert message.endswith(
        "[stages.postprocess] has workers, and processing.code 'stages.py:Stages' defines no method postprocess"
    )
