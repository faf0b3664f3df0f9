"""A model's own sample through all of its stages: the warm-up at load, and what `models check` runs."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from common.errors import ConfigError
from common.tensor import MAX_STRINGS, Array, item_size, numpy_dtype, to_tensor
from common.wire import MAX_BYTES
from inference_worker.backends.base import ModelRequest
from inference_worker.batching.padding import most_rows, row_shapes
from inference_worker.infer import infer
from inference_worker.models.registry import Loaded
from inference_worker.models.spec import ModelSpec, TensorSpec
from inference_worker.outcome import as_model_error
from inference_worker.outputs import postprocess
from inference_worker.prepare import Features, check_inputs, preprocess

#: The size that a variable dimension has in a made-up sample.
_ANY_SIZE = 8


def sample_inputs(spec: ModelSpec) -> dict[str, Array]:
    """The inputs of one item: the declared sample, else zeros of the declared shapes; empty where neither is there.

    Raises ConfigError where zeros would be larger than any request.
    """
    if spec.sample:
        dtypes = {one.name: numpy_dtype(one.dtype) for one in spec.inputs}
        return {name: _as_declared(value, dtypes.get(name)) for name, value in spec.sample.items()}
    return {one.name: _made_up(spec, one) for one in spec.inputs}


def run_sample(loaded: Loaded, rows: int = 1) -> Mapping[str, Array]:
    """The outputs for `rows` copies of the sample, with a rows dimension; empty for a model without one.

    Raises ModelError or InvalidRequest where a stage of the model fails or gives other outputs than are
    declared, ConfigError where a sample must be given.
    """
    request = _request(loaded, rows)
    if request is None:
        return {}
    try:
        outputs = infer(loaded, _stacked(preprocess(loaded, request)), rows)
        return postprocess(loaded, outputs, request)
    except Exception as error:
        raise as_model_error(loaded, error) from error


def full_batch(loaded: Loaded) -> int:
    """How many copies of the sample the batcher would put into one batch, from 1. Raises as `run_sample` does."""
    arrays = sample_batch(loaded)
    if not arrays:
        return 1
    limits = loaded.spec.batch
    return max(1, most_rows(limits, arrays, row_shapes(arrays, limits.pad)))


def sample_batch(loaded: Loaded) -> dict[str, Array]:
    """What reaches `infer` for the sample, as one row; empty for a model without one. Raises as `run_sample` does."""
    request = _request(loaded, 1)
    if request is None:
        return {}
    try:
        return _stacked(preprocess(loaded, request))
    except Exception as error:
        raise as_model_error(loaded, error) from error


def warm_up(loaded: Loaded) -> None:
    """Run one row and one full batch, so that no first request pays for what is made on first use."""
    run_sample(loaded)
    run_sample(loaded, full_batch(loaded))


def _request(loaded: Loaded, rows: int) -> ModelRequest | None:
    """`rows` copies of the sample as one request; None for a model without one."""
    inputs = sample_inputs(loaded.spec)
    if not inputs:
        return None
    checked = check_inputs(loaded.spec, inputs)
    return ModelRequest({name: np.repeat(array[:1], rows, axis=0) for name, array in checked.arrays.items()}, rows, {})


def _stacked(features: Features) -> dict[str, Array]:
    # Copies of one item have equal sizes: nothing is to be padded.
    return {name: np.stack(rows) if isinstance(rows, list) else rows for name, rows in features.items()}


def _as_declared(value: Any, dtype: np.dtype[Any] | None) -> Array:
    array = to_tensor(value).numpy()
    return array if dtype is None or dtype.kind == "O" else array.astype(dtype)


def _made_up(spec: ModelSpec, declared: TensorSpec) -> Array:
    shape = tuple(_ANY_SIZE if size == -1 else size for size in declared.shape)
    strings = declared.dtype == "BYTES"
    most = MAX_STRINGS if strings else MAX_BYTES // item_size(declared.dtype)
    if prod(shape) > most:
        raise ConfigError(
            f"model '{spec.name}:{spec.version}': zeros for the input {declared} would have the shape {list(shape)}, "
            f"and a request holds at most {most} elements of it; give a [sample], or declare what a request can hold"
        )
    return np.full(shape, "warm up", dtype=object) if strings else np.zeros(shape, numpy_dtype(declared.dtype))
