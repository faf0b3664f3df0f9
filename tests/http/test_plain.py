"""Plain JSON for people: models at once, jobs for later."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from tests.support.gateways import Gateway
from tests.support.http import ask
from tests.support.waiting import wait_until


def test_curl_gets_an_answer(door: Gateway) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl on the PATH")

    done = subprocess.run(
        [curl, "-sS", "-H", "content-type: application/json", "-d", '{"text": "hello"}', f"{door.url}/models/upper"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip

    assert (done.stdout, done.stderr) == ('{"model":"upper","version":"1","outputs":{"out":["HELLO"]}}', "")


@pytest.mark.parametrize(("body", "out"), [(["a", "b"], ["A", "B"]), ("a", ["A"]), ({"text": ["a"]}, ["A"])])
def test_a_bare_value_is_the_only_input(door: Gateway, body: Any, out: Any) -> None:
    assert ask(door.address, "POST", "/models/upper", body).json["outputs"] == {"out": out}


def test_options_stand_behind_the_question_mark(door: Gateway, worker: Any) -> None:
    before = len(worker.seen)

    path = '/models/echo?version=1&timeout=5&priority=high&parameters={"top_k":3}'.replace('"', "%22")
    assert ask(door.address, "POST", path, {"x": [[1.5, 2]]}).json["outputs"] == {"x": [[1.5, 2.0]]}

    [seen] = worker.seen[before:]
    assert (seen.version, seen.timeout_ms, seen.parameters) == ("1", 5000, {"top_k": 3})


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/models/nobody", {"x": 1}, 404, "model_not_found"),
        ("/models/fails", {"x": 1}, 422, "model_error"),
        ("/models/nan", {"x": 1}, 422, "model_error"),
        ("/models/echo?verison=1", {"x": 1}, 400, "invalid_request"),
        ("/models/echo?timeout=no", {"x": 1}, 400, "invalid_request"),
        ("/models/echo?priority=now", {"x": 1}, 400, "invalid_request"),
        ("/models/echo", {"x": None}, 400, "invalid_request"),
        ("/models/echo", {"x": [[1], [1, 2]]}, 400, "invalid_request"),
        ("/models/echo", b"{", 400, "invalid_request"),
        ("/jobs", {"model": "echo"}, 400, "invalid_request"),
    ],
)
def test_an_error_tells_its_code_and_has_its_status(
    door: Gateway, path: str, body: Any, status: int, code: str
) -> None:
    said = ask(door.address, "POST", path, body)

    assert (said.status, said.json["error"]["code"], said.headers["x-error-code"]) == (status, code, code)


def test_a_kept_result_is_told_and_no_cache_computes_it_anew(door: Gateway, worker: Any) -> None:
    body, before = {"x": [7, 8, 9]}, len(worker.seen)

    first, second = (ask(door.address, "POST", "/models/kept", body) for _ in range(2))
    anew = ask(door.address, "POST", "/models/kept", body, cache_control="no-cache")

    assert ["x-cache" in one.headers for one in (first, second, anew)] == [False, True, False]
    assert first.json == second.json == anew.json
    assert len(worker.seen) - before == 2


def test_models_are_described_as_their_authors_write_them(door: Gateway) -> None:
    models = {one["name"]: one for one in ask(door.address, "GET", "/models").json["models"]}

    assert models["kept"]["inputs"] == {"x": "FP32[3]"}
    assert ask(door.address, "GET", "/models/embed").json == models["embed"]


def test_a_jobs_result_is_there_later(door: Gateway) -> None:
    said = ask(door.address, "POST", "/jobs", {"model": "upper", "inputs": {"text": "hello"}})

    assert said.status == 202
    path = said.headers["location"]
    done = wait_until(
        lambda: one if (one := ask(door.address, "GET", path).json)["status"] == "done" else None, "the job is done"
    )
    assert done["result"]["outputs"] == {"out": ["HELLO"]}


def test_a_jobs_error_is_told_with_its_code(door: Gateway) -> None:
    path = ask(door.address, "POST", "/jobs", {"model": "fails", "inputs": {"x": 1}}).headers["location"]

    failed = wait_until(
        lambda: one if (one := ask(door.address, "GET", path).json)["status"] == "failed" else None, "it has failed"
    )

    assert failed["error"]["code"] == "model_error"


def test_a_cancelled_job_stays_cancelled(door: Gateway) -> None:
    path = ask(door.address, "POST", "/jobs", {"model": "echo", "inputs": {"x": 1}}).headers["location"]

    assert ask(door.address, "DELETE", path).status == 204
    assert ask(door.address, "GET", path).json["status"] == "cancelled"


def test_nobody_knows_a_job_that_never_was(door: Gateway) -> None:
    assert ask(door.address, "GET", "/jobs/0123456789abcdef").status == 404
