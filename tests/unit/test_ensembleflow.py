"""One run of an ensemble: what may go when, with what, and what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.errors import ConfigError, InvalidRequest, ModelError, Overloaded
from common.tensor import Tensor, to_bf16
from gateway.call import Call
from gateway.ensembles.ensemble import Ensemble, Source, Step
from gateway.ensembles.flow import Flow, at_step
from gateway.result import Result

REQUEST = Source(None, "x")
LEFT = Step("left", "a", {"x": REQUEST}, parameters={"k": 1, "m": 1}, priority="low")
RIGHT = Step("right", "b", {"x": REQUEST}, version="2")
JOIN = Step("join", "c", {"l": Source("left", "y"), "r": Source("right", "y"), "x": REQUEST})
DIAMOND = Ensemble("diamond", (JOIN, LEFT, RIGHT), {"z": Source("join", "z"), "l": Source("left", "y")})


def flow(inputs: object = 1.0, **call: Any) -> Flow:
    return Flow(DIAMOND, Call("diamond", **call), inputs)


def result(version: str = "1", cached: bool = False, **outputs: Tensor) -> Result:
    message = {
        "model": "m", "version": version, "timings": {"queue_us": 1, "wait_us": 2, "compute_us": 3, "batch_rows": 4},
        "outputs": {name: tensor.to_wire() for name, tensor in outputs.items()},
    }  # fmt: skip
    found = Result(message)
    found.cached = cached
    return found


ONE, TWO, THREE = (to_bf16(np.array([number], "f4")) for number in (1.0, 2.0, 3.0))


def test_steps_that_do_not_need_each_other_go_at_once_and_the_others_when_they_can() -> None:
    run = flow()

    assert run.ready() == [LEFT, RIGHT]
    run.answered(LEFT, result(y=ONE))
    assert run.ready() == []
    run.answered(RIGHT, result(y=TWO))
    assert run.ready() == [JOIN]
    assert not run.done
    run.answered(JOIN, result(z=THREE))
    assert run.done


def test_outputs_go_to_the_next_step_as_they_came() -> None:
    run = flow(7.5)
    run.ready()
    run.answered(LEFT, result(y=ONE))
    run.answered(RIGHT, result(y=TWO))

    assert run.inputs(JOIN) == {"l": ONE, "r": TWO, "x": 7.5}


def test_a_step_is_asked_for_what_others_take_of_it_alone() -> None:
    run = flow()

    assert run.call(LEFT).outputs == ["y"]
    assert run.call(JOIN).outputs == ["z"]
    assert flow(outputs=["l"]).ready() == [LEFT]


def test_a_steps_own_settings_go_before_the_requests() -> None:
    run = flow(priority="high", tenant="acme", affinity="u", parameters={"left": {"k": 2}}, cache=False)

    left, right = run.call(LEFT), run.call(RIGHT)

    assert (left.priority, left.version, left.parameters) == ("low", None, {"k": 2, "m": 1})
    assert (right.priority, right.version, right.parameters) == ("high", "2", {})
    assert (left.tenant, left.affinity, left.cache) == ("acme", "u", False)


def test_the_answer_has_the_outputs_the_versions_and_the_sums_of_times() -> None:
    run = flow()
    run.ready()
    run.answered(RIGHT, result("2", y=TWO))
    run.answered(LEFT, result("1", cached=True, y=ONE))
    run.ready()
    run.answered(JOIN, result("7", z=THREE))

    answer = run.result()

    assert (answer.model, answer.version) == ("diamond", "join=7 left=1 right=2")
    assert {name: answer[name].tolist() for name in answer.outputs} == {"z": [3.0], "l": [1.0]}
    assert (answer.timings.queue_us, answer.timings.compute_us, answer.timings.batch_rows) == (3, 9, 4)
    assert not answer.cached


@pytest.mark.parametrize(
    ("inputs", "call", "told"),
    [
        ({"y": 1}, {}, "ensemble 'diamond' takes the inputs x; got y"),
        ({}, {}, "ensemble 'diamond' takes the inputs x; got none"),
        (1.0, {"version": "2"}, "ensemble 'diamond' has no versions; got '2'"),
        (1.0, {"outputs": ["q"]}, "outputs must be some of those of ensemble 'diamond', z, l; got"),
        (1.0, {"outputs": []}, "outputs must be some of those"),
        (1.0, {"parameters": {"k": 1}}, "must be a map for each step that gets some, of join, left, right; got 'k': 1"),
    ],
)
def test_a_call_that_it_does_not_take_is_refused(inputs: object, call: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        flow(inputs, **call)


def test_a_model_that_gives_less_than_is_taken_is_told() -> None:
    run = flow()
    run.ready()

    with pytest.raises(ConfigError, match="no output 'y'; the model answered z"):
        run.answered(LEFT, result(z=ONE))


def test_an_error_that_names_the_step_is_the_same_error() -> None:
    original = Overloaded("full", retry_after_ms=250)

    told = at_step(original, "rank", "answer")

    assert str(told) == "step 'rank' of ensemble 'answer': full"
    assert isinstance(told, Overloaded)
    assert (told.retry_after_ms, told.retryable, told.__cause__) == (250, True, original)
    assert not at_step(ModelError("broken"), "rank", "answer").retryable
