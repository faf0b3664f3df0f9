"""A request's inputs to parts that can be batched: check against the model, rows first, preprocess, cut. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import InvalidRequest, ModelError
from common.names import shorten
from common.tensor import Array, dtype_name
from inference_worker.backends.base import ModelRequest
from inference_worker.item import Item, Part, Signature
from inference_worker.registry import Loaded
from inference_worker.spec import ModelSpec, TensorSpec

#: A lower priority's part goes first once it has waited so much longer: urgent ones pass, none starves.
HEAD_START_S = (0.0, 0.05, 0.2)

#: More hold up all other requests; and rows of no elements cost their sender nothing.
MAX_ROWS = 65_536
#: Rows whose sizes may differ are held and chosen one by one.
MAX_PADDED_ROWS = 4096

#: What a client calls a bare value as long as no worker has told it the input's name.
BARE = "input"

Features = Mapping[str, Array | list[Array]]


@dataclass(frozen=True, slots=True)
class Checked:
    """Inputs that fit their model: each array with a rows dimension first."""

    arrays: dict[str, Array]
    rows: int
    single: bool


def check_inputs(spec: ModelSpec, inputs: Mapping[str, Array]) -> Checked:
    """`inputs` against the model's declaration. Raises InvalidRequest naming the input, what it is and should be.

    An array of the declared rank is one item, with one dimension more it is as many rows. A model
    without declared inputs takes anything as one item.
    """
    if not spec.inputs:
        return Checked({name: array[None] for name, array in inputs.items()}, 1, True)
    if len(spec.inputs) == 1 and inputs.keys() == {BARE}:
        inputs = {spec.inputs[0].name: inputs[BARE]}
    if inputs.keys() != {one.name for one in spec.inputs}:
        _explain_names(spec, inputs)
    rows = {_rows_of(spec, one, inputs[one.name]) for one in spec.inputs}
    if len(rows) != 1:
        raise InvalidRequest(f"model '{spec.name}' needs inputs with the same number of rows; got {_listed(rows)}")
    count = rows.pop()
    if count is None:
        return Checked({name: array[None] for name, array in inputs.items()}, 1, True)
    most = MAX_PADDED_ROWS if spec.batch.pad else MAX_ROWS
    if not 1 <= count <= most:
        raise InvalidRequest(f"a request must have 1 to {most} rows; got {count}")
    return Checked(dict(inputs), count, False)


def preprocess(loaded: Loaded, request: ModelRequest) -> Features:
    """The model's own preprocess stage. Raises ModelError where it fails or returns the wrong number of rows."""
    features = loaded.backend.preprocess(request)
    if not isinstance(features, Mapping) or not features:
        raise ModelError(
            f"preprocess of model '{loaded.spec.name}' must return a map of arrays; got {shorten(features)}"
        )
    for name, rows in features.items():
        if len(rows) != request.rows:
            raise ModelError(
                f"preprocess of model '{loaded.spec.name}' returned {len(rows)} rows of '{name}' for {request.rows}"
            )
    return features


def parts_of(item: Item, features: Features) -> Iterator[Part]:
    """Cut an item into parts: single rows where their sizes may differ, else as many as a batch takes."""
    limits = item.loaded.spec.batch
    step = 1 if limits.pad else limits.rows
    order = item.taken_s + HEAD_START_S[item.entry.stream]
    for start in range(0, item.model_request.rows, step):
        stop = min(start + step, item.model_request.rows)
        arrays = {name: _slice(rows, start, stop) for name, rows in features.items()}
        yield Part(
            item, start, stop - start, arrays, _signature(item.loaded, arrays), _length(limits.pad, arrays), order
        )


def _rows_of(spec: ModelSpec, declared: TensorSpec, array: Array) -> int | None:
    """The array's rows, or None for a single item."""
    if dtype_name(array) != declared.dtype and not _same_in_numpy(declared.dtype, array):
        raise InvalidRequest(
            f"input '{declared.name}' of model '{spec.name}' must be {declared.dtype}; got {dtype_name(array)}"
        )
    extra = array.ndim - len(declared.shape)
    sizes = array.shape[extra:] if extra in (0, 1) else ()
    fits = extra in (0, 1) and all(want in (-1, size) for want, size in zip(declared.shape, sizes, strict=True))
    if not fits:
        rows = ", ".join(map(str, ("rows", *declared.shape)))
        raise InvalidRequest(
            f"input '{declared.name}' of model '{spec.name}' must have shape {list(declared.shape)} or [{rows}]; "
            f"got {list(array.shape)}"
        )
    return array.shape[0] if extra else None


def _same_in_numpy(dtype: str, array: Array) -> bool:
    return dtype == "BF16" and array.dtype == np.float32


def _explain_names(spec: ModelSpec, inputs: Mapping[str, Any]) -> None:
    wanted = [one.name for one in spec.inputs]
    raise InvalidRequest(f"model '{spec.name}' takes the inputs {', '.join(wanted)}; got {', '.join(sorted(inputs))}")


def _listed(rows: set[int | None]) -> str:
    return ", ".join(sorted("one item" if count is None else str(count) for count in rows))


def _slice(rows: Array | Sequence[Array], start: int, stop: int) -> Array:
    if isinstance(rows, np.ndarray):
        return rows if stop - start == len(rows) else rows[start:stop]
    if stop - start == 1:
        return np.asarray(rows[start])[None]
    return np.stack(rows[start:stop])


def _signature(loaded: Loaded, arrays: Mapping[str, Array]) -> Signature:
    pad = loaded.spec.batch.pad
    # The loaded model itself, by identity: after a reload old and new items do not mix.
    return (
        id(loaded),
        *((name, array.dtype.str, array.ndim if name in pad else array.shape[1:]) for name, array in arrays.items()),
    )


def _length(pad: Mapping[str, float], arrays: Mapping[str, Array]) -> int:
    return max((array[0].size for name, array in arrays.items() if name in pad and len(array)), default=0)
