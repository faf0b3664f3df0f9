"""A model's own sample through all of its stages: the warm-up at load, and what `models check` runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.tensor import Array, numpy_dtype, to_tensor
from inference_worker.backends.base import ModelRequest
from inference_worker.outcome import as_model_error
from inference_worker.prepare import Features, check_inputs, preprocess
from inference_worker.registry import Loaded
from inference_worker.runner import infer
from inference_worker.spec import ModelSpec, TensorSpec

#: The size that a variable dimension has in a made-up sample.
_ANY_SIZE = 8


def sample_inputs(spec: ModelSpec) -> dict[str, Array]:
    """The inputs of one item: the declared sample, else zeros of the declared shapes; empty where neither is there."""
    if spec.sample:
        dtypes = {one.name: numpy_dtype(one.dtype) for one in spec.inputs}
        return {name: _as_declared(value, dtypes.get(name)) for name, value in spec.sample.items()}
    return {one.name: _made_up(one) for one in spec.inputs}


def run_sample(loaded: Loaded, rows: int = 1) -> Mapping[str, Array]:
    """The outputs for `rows` copies of the sample, with a rows dimension; empty for a model without one.

    Raises ModelError or InvalidRequest where a stage of the model fails.
    """
    inputs = sample_inputs(loaded.spec)
    if not inputs:
        return {}
    checked = check_inputs(loaded.spec, inputs)
    arrays = {name: np.concatenate([array[:1]] * rows) for name, array in checked.arrays.items()}
    request = ModelRequest(arrays, rows, {})
    try:
        features = preprocess(loaded, request)
        outputs = infer(loaded, _stacked(features), rows)
        return loaded.backend.postprocess(outputs, request)
    except Exception as error:
        raise as_model_error(loaded, error) from error


def warm_up(loaded: Loaded) -> None:
    """Run one row and one full batch, so that no first request pays for what is made on first use."""
    run_sample(loaded)
    run_sample(loaded, loaded.spec.batch.rows)


def _stacked(features: Features) -> dict[str, Array]:
    # Copies of one item have equal sizes: nothing is to be padded.
    return {name: np.stack(rows) if isinstance(rows, list) else rows for name, rows in features.items()}


def _as_declared(value: Any, dtype: np.dtype[Any] | None) -> Array:
    array = to_tensor(value).numpy()
    return array if dtype is None or dtype.kind == "O" else array.astype(dtype)


def _made_up(declared: TensorSpec) -> Array:
    shape = tuple(_ANY_SIZE if size == -1 else size for size in declared.shape)
    if declared.dtype == "BYTES":
        return np.full(shape, "warm up", dtype=object)
    return np.zeros(shape, dtype=numpy_dtype(declared.dtype))
