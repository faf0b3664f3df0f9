"""ensembles.toml: what it declares, and the line of whatever is wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from gateway import load_ensembles
from gateway.ensembles.ensemble import Source
from gateway.ensembles.file import parse_ensembles

ANSWER = """\
[answer.steps.embed]
model = "minilm"
version = "prod"
pool = "gpu-pool-a"
inputs.text = "request.question"

[answer.steps.rank]
model = "ranker"
inputs.query = "embed.embedding"
inputs.passages = "request.passages"
parameters.top_k = 3
priority = "high"

[answer.outputs]
scores = "rank.scores"
"""


def test_a_file_declares_steps_where_their_inputs_come_from_and_outputs() -> None:
    ensemble = parse_ensembles(ANSWER)["answer"]
    embed, rank = ensemble.steps

    assert (embed.name, embed.model, embed.version, embed.pool) == ("embed", "minilm", "prod", "gpu-pool-a")
    assert embed.inputs == {"text": Source(None, "question")}
    assert rank.inputs == {"query": Source("embed", "embedding"), "passages": Source(None, "passages")}
    assert (rank.version, rank.pool, rank.parameters, rank.priority) == (None, None, {"top_k": 3}, "high")
    assert ensemble.outputs == {"scores": Source("rank", "scores")}
    assert str(ensemble) == "answer(question, passages) -> scores"


def test_several_ensembles_fit_into_one_file(tmp_path: Path) -> None:
    path = tmp_path / "ensembles.toml"
    path.write_text(ANSWER + ANSWER.replace("answer", "other"))

    assert load_ensembles(path).keys() == {"answer", "other"}


def test_an_empty_file_declares_nothing() -> None:
    assert parse_ensembles("") == {}


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file or directory"):
        load_ensembles(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("[answer.outputs]", "[answer.outputs", 14, "this is not TOML"),
        ('model = "minilm"', "", 1, "step 'embed' has no model"),
        ('model = "minilm"', 'model = "mini lm"', 2, "model must be"),
        ('version = "prod"', "version = 2", 3, "version must be"),
        ('pool = "gpu-pool-a"', 'pool = "a}b"', 4, "pool must be"),
        ('pool = "gpu-pool-a"', 'pools = "a"', 4, "unknown key 'pools'; a step has model, version, pool, inputs"),
        ('inputs.text = "request.question"', "inputs = 3", 5, "answer.steps.embed.inputs must be a table; got 3"),
        ('inputs.text = "request.question"', "", 1, "step 'embed' has no inputs"),
        ('"request.question"', '"question"', 5, "'text' must be a reference such as"),
        ('"request.question"', "7", 5, "'text' must be a reference such as"),
        ('"request.question"', '"request.no good"', 5, "what 'text' takes must be"),
        ('inputs.query = "embed.', 'inputs.query = "embedd.', 9, "step 'rank' takes 'embedd.embedding', and there is"),
        ("parameters.top_k = 3", "parameters.top_k = inf", 11, "parameters.top_k must be a finite number"),
        ('priority = "high"', 'priority = "urgent"', 12, "priority must be one of high, normal, low"),
        ('scores = "rank.scores"', "", 14, "it has no outputs"),
        ('scores = "rank.scores"', 'scores = "request.question"', 15, "output 'scores' is 'request.question', and"),
        ('scores = "rank.scores"', 'x = "embed.embedding"', 7, "nothing takes an output of step 'rank'"),
        ('"request.question"', '"rank.scores"', 5, "the steps go in a circle: "),
        ("[answer.outputs]", "[answer.results]", 14, "unknown key 'results'; an ensemble has steps and outputs"),
        ("[answer.steps.rank]", '[answer.steps."r.s"]', 7, "a step's name is 1 to 64 letters"),
        ("[answer.steps.rank]", "[answer.steps.request]", 7, "'request' is the name of the request"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(old: str, new: str, line: int, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_ensembles(ANSWER.replace(old, new))

    told = str(caught.value)
    assert problem in told
    if "circle" not in problem:
        assert told.startswith(f"ensembles.toml:{line}: ")


def test_a_circle_is_told_step_by_step() -> None:
    with pytest.raises(ConfigError, match=r"circle: (embed -> rank -> embed|rank -> embed -> rank)$"):
        parse_ensembles(ANSWER.replace('"request.question"', '"rank.scores"'))


def test_what_is_no_table_is_told() -> None:
    with pytest.raises(ConfigError, match=r"ensembles\.toml:1: ensemble 'answer': answer must be a table; got 3"):
        parse_ensembles("answer = 3")
