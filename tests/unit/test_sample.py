"""A model's sample, given or made up, and the batch that it fills."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from common.errors import ConfigError, ModelError
from common.tensor import Array
from common.wire import MAX_BYTES
from inference_worker.batching.padding import MOST_BYTES
from inference_worker.models.registry import Loaded
from inference_worker.models.sample import full_batch, run_sample, sample_inputs, warm_up
from inference_worker.models.spec import ModelSpec, TensorSpec
from tests.support.items import FunctionBackend, model


def taking(dtype: str, *shape: int) -> ModelSpec:
    return ModelSpec("m", "1", "python", inputs=(TensorSpec("x", dtype, shape),))


def test_without_a_sample_zeros_of_the_declared_shape_are_made_up() -> None:
    assert sample_inputs(taking("FP32", -1, 3))["x"].shape == (8, 3)
    assert sample_inputs(taking("BYTES"))["x"].tolist() == "warm up"


@pytest.mark.parametrize(
    ("spec", "most"),
    [
        (taking("FP32", -1, 100_000_000), MAX_BYTES // 4),
        (taking("UINT8", MAX_BYTES + 1), MAX_BYTES),
        (taking("BYTES", -1, 10_000_000), 1_048_576),
        (taking("FP64", *[2**31 - 1] * 15), MAX_BYTES // 8),
    ],
)
def test_a_made_up_sample_that_no_request_could_hold_is_refused_before_it_is_made(spec: ModelSpec, most: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"zeros for the input x: .* at most {most} elements of it; give a \[sample\]"
    ):
        sample_inputs(spec)


def test_a_full_batch_is_one_that_the_batcher_could_form() -> None:
    assert full_batch(model(rows=16)) == 16
    # 8 elements for a row of variable size
    assert full_batch(model(rows=16, padded=40, pad={"x": 0.0})) == 5
    assert full_batch(model(rows=16, padded=4, pad={"x": 0.0})) == 1
    assert full_batch(model(shape=(MOST_BYTES // 16,), rows=16)) == 4


def test_the_warm_up_runs_one_row_and_one_full_batch() -> None:
    seen: list[int] = []

    def infer(batch: Mapping[str, Array]) -> Mapping[str, Array]:
        seen.append(len(batch["x"]))
        return {"output": batch["x"]}

    warm_up(model(infer, rows=4))
    assert seen == [1, 4]


def test_a_model_that_gives_other_outputs_than_it_declares_is_found_when_it_loads() -> None:
    spec = ModelSpec(
        "m", "1", "python", inputs=(TensorSpec("x", "FP32", (2,)),), outputs=(TensorSpec("y", "FP32", (3,)),)
    )
    loaded = Loaded(spec, FunctionBackend(lambda batch: {"y": batch["x"]}))
    with pytest.raises(
        ModelError, match=r"declares the output y: FP32\[3\], with the rows first, and gave FP32\[1, 2\]"
    ):
        warm_up(loaded)


def test_outputs_are_converted_as_they_are_for_a_client() -> None:
    spec = ModelSpec("m", "1", "python", inputs=(TensorSpec("x", "FP32", ()),), outputs=(TensorSpec("y", "FP64", ()),))
    outputs = run_sample(Loaded(spec, FunctionBackend(lambda batch: {"y": batch["x"]})), 3)
    assert (outputs["y"].dtype, outputs["y"].shape) == (np.float64, (3,))
