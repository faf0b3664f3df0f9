"""Ensembles as graphs, and whether what models publish fits together."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import ConfigError, ModelNotFound
from common.traffic import Plan
from gateway.catalog import Catalog, read_models
from gateway.ensembles.ensemble import MAX_STEPS, Ensemble, Source, Step, mismatches, shapes_meet
from tests.support.echo_worker import model

EMBED = Step("embed", "minilm", {"text": Source(None, "question")})
RANK = Step("rank", "ranker", {"query": Source("embed", "embedding"), "passages": Source(None, "passages")})
ANSWER = Ensemble("answer", (EMBED, RANK), {"scores": Source("rank", "scores")})


def tensor(name: str, dtype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def minilm(*outputs: dict[str, Any], **more: Any) -> tuple[str, bytes]:
    return model("minilm", inputs=[tensor("text", "BYTES")], outputs=outputs, **more)


def ranker(*inputs: dict[str, Any], **more: Any) -> tuple[str, bytes]:
    passages = tensor("passages", "BYTES", -1)
    return model("ranker", inputs=[*inputs, passages], outputs=[tensor("scores", "FP32", -1)], **more)


def problems(*models: tuple[str, bytes], plans: dict[str, Plan] | None = None) -> list[str]:
    catalog = Catalog(read_models(dict(models)), plans or {})
    return [f"{step}: {error}" for step, error in mismatches(ANSWER, {"embed": catalog, "rank": catalog})]


# The graph


def test_an_ensemble_that_is_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="ensemble 'answer': it has no outputs"):
        Ensemble("answer", (EMBED,), {})
    with pytest.raises(ConfigError, match="ensemble 'answer': nothing takes an output of step 'rank'"):
        Ensemble("answer", (EMBED, RANK), {"x": Source("embed", "x")})
    with pytest.raises(ConfigError, match=f"1 to {MAX_STEPS} steps; got 0"):
        Ensemble("answer", (), {"x": Source("embed", "x")})
    with pytest.raises(ConfigError, match="or of another step"):
        Ensemble("answer", (EMBED, EMBED), {"x": Source("embed", "x")})


def test_only_what_the_wanted_outputs_need_is_run() -> None:
    both = Ensemble(
        "answer", (EMBED, RANK), {"scores": Source("rank", "scores"), "vector": Source("embed", "embedding")}
    )

    assert both.needed(["vector"]).keys() == {"embed"}
    assert both.needed(["scores"]).keys() == {"embed", "rank"}


# Against the models


def test_models_that_fit_are_fine() -> None:
    assert problems(minilm(tensor("embedding", "FP32", 384)), ranker(tensor("query", "FP32", 384))) == []
    assert problems(minilm(tensor("embedding", "BF16", 384)), ranker(tensor("query", "FP32", -1))) == []


def test_a_pool_of_which_nothing_is_known_and_a_model_that_declares_nothing_pass() -> None:
    assert problems() == []
    assert problems(model("minilm"), model("ranker")) == []


def test_a_missing_model_is_told_with_what_is_there() -> None:
    assert problems(minilm()) == ["rank: no worker of its pool serves model 'ranker'; there is minilm:1"]
    catalog = Catalog(read_models(dict([minilm()])))
    [(_, error)] = mismatches(ANSWER, {"embed": catalog, "rank": catalog})
    assert isinstance(error, ModelNotFound)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (tensor("embedding", "FP32", 384), tensor("query", "FP16", 384)),
        (tensor("embedding", "FP32", 384), tensor("query", "FP32", 768)),
        (tensor("embedding", "FP32", 384), tensor("query", "FP32", -1, -1, 384)),
    ],
)
def test_a_wrong_dtype_size_or_rank_between_two_steps_is_told(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    [told] = problems(minilm(given), ranker(wanted))

    assert told == (
        f"rank: input 'query' of model 'ranker:1' is {wanted['dtype']}{wanted['shape']}, "
        f"and 'embed.embedding' of 'minilm:1' is {given['dtype']}{given['shape']}"
    )


def test_inputs_and_outputs_that_a_model_does_not_have_are_told() -> None:
    assert problems(minilm(tensor("vector", "FP32", 384)), ranker(tensor("question", "FP32", 384))) == [
        "rank: model 'ranker:1' takes the inputs question, passages; the step gives query, passages"
    ]
    assert problems(minilm(tensor("vector", "FP32", 384)), ranker(tensor("query", "FP32", 384))) == [
        "rank: model 'minilm:1' gives no output 'embedding' for input 'query' of model 'ranker:1'; it gives vector"
    ]
    no_scores = model("ranker", outputs=[tensor("order", "INT64", -1)])
    assert problems(model("minilm"), no_scores) == [
        "rank: model 'ranker:1' gives no output 'scores' for output 'scores' of the ensemble; it gives order"
    ]


def test_each_version_that_a_split_may_choose_is_checked() -> None:
    versions = (
        minilm(tensor("embedding", "FP32", 384)),
        model("minilm", "2", default=False, outputs=[tensor("embedding", "FP32", 768)]),
    )
    ranked = ranker(tensor("query", "FP32", 384))

    assert problems(*versions, ranked) == []
    [told] = problems(*versions, ranked, plans={"minilm": Plan(split={"1": 95, "2": 5})})
    assert "of 'minilm:2' is FP32[768]" in told


@pytest.mark.parametrize(
    ("given", "wanted", "meet"),
    [
        ((384,), (384,), True),
        ((384,), (-1,), True),
        ((384,), (-1, 384), True),  # rows of one model are the other's item
        ((-1, 384), (384,), True),  # an item is taken as rows
        ((384,), (5,), False),
        ((384,), (-1, 5), False),
        ((), (), True),
        ((), (2, 2), False),
    ],
)
def test_shapes_meet_where_some_request_could_pass(given: list[int], wanted: list[int], meet: bool) -> None:
    assert shapes_meet(given, wanted) == meet
