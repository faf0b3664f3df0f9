"""A request's inputs to parts that can be batched: check against the model, rows first, preprocess, cut. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from common.errors import InvalidRequest, ModelError
from common.keys import is_bulk, priority_of
from common.names import shorten
from common.protocol import BARE_INPUT, OWN_BATCH
from common.records import record
from common.tensor import Array, as_array, dtype_name, numpy_dtype
from inference_worker.backends.base import ModelRequest
from inference_worker.batching.collate import pad_rows
from inference_worker.batching.padding import longest, row_shapes
from inference_worker.item import Item, Part, Signature
from inference_worker.models.registry import Loaded
from inference_worker.models.spec import MAX_ROWS, ModelSpec, TensorSpec, fits

#: A lower priority's part goes first once it has waited so much longer: urgent ones pass, none starves.
HEAD_START_S = (0.0, 0.05, 0.2)
#: In the bulk lane it has to wait so much longer still. What is held of it fills the batches of the others until then.
BULK_S = 10.0
#: A part goes as if its deadline were at most so long after its turn: a near deadline passes, none starves for it.
PATIENCE_S = 1.0

#: Rows whose sizes may differ are held and chosen one by one.
MAX_PADDED_ROWS = 4096

Features = Mapping[str, Array | list[Array]]
Rows = TypeVar("Rows", Array, list[Array])


@record(eq=False)
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
    if len(spec.inputs) == len(inputs) == 1 and BARE_INPUT in inputs:
        inputs = {spec.inputs[0].name: inputs[BARE_INPUT]}
    single = len(spec.inputs) == len(inputs)
    for one in spec.inputs:
        if one.name not in inputs:
            _explain_names(spec, inputs)
        single = single and _is_single(one, inputs[one.name])
    if single:
        return Checked({name: array[None] for name, array in inputs.items()}, 1, True)
    if len(spec.inputs) != len(inputs):
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
    """The model's own preprocess stage. Raises ModelError where it fails or returns anything but arrays with the rows.

    A list of rows is one array where they have one size and nothing is padded, else a list of arrays.
    """
    features = loaded.backend.preprocess(request)
    if features is request.inputs:
        return request.inputs
    if not isinstance(features, Mapping) or not features:
        raise _wrong_stage(loaded.spec, f"must return a map of arrays; got {shorten(features)}")
    return {name: _feature(loaded.spec, name, rows, request.rows) for name, rows in features.items()}


def parts_of(item: Item, features: Features) -> list[Part]:
    """Cut an item into parts: single rows where their sizes may differ, else as many as a batch takes.

    One that asks for batches of its own (OWN_BATCH) is filled up here, and cut by its rows alone.
    """
    rows, limits, deadline_s = item.model_request.rows, item.loaded.spec.batch, item.deadline_s
    order = order_of(item, deadline_s)
    own = OWN_BATCH in item.request.parameters
    if own:
        features = filled_up(item.loaded.spec, features)
    step = 1 if not own and (limits.pad or list in map(type, features.values())) else limits.rows
    return [
        _part(item, features, start, min(start + step, rows), order, deadline_s, own) for start in range(0, rows, step)
    ]


def filled_up(spec: ModelSpec, features: Features) -> dict[str, Array]:
    """Each feature as one array, shorter rows filled up to the longest. Raises ModelError for rows that are not padded
    and differ in size: these run one at a time."""
    return {
        name: rows if isinstance(rows, np.ndarray) else _joined(spec, name, rows) for name, rows in features.items()
    }


def _joined(spec: ModelSpec, name: str, rows: list[Array]) -> Array:
    if name in spec.batch.pad:
        return pad_rows([row[None] for row in rows], spec.batch.pad[name])
    if len({row.shape for row in rows}) > 1:
        raise _wrong_stage(
            spec, f"returned rows of '{name}' that differ in size, and model.toml pads them with nothing"
        )
    return np.stack(rows)


def _part(item: Item, features: Features, start: int, stop: int, order: float, deadline_s: float, own: bool) -> Part:
    loaded, pad = item.loaded, item.loaded.spec.batch.pad
    arrays = {name: _slice(rows, start, stop) for name, rows in features.items()}
    signature = _signature(loaded, arrays)
    if not pad:
        return Part(item, start, stop - start, arrays, signature, (), 0, order, deadline_s, own)
    shapes = row_shapes(arrays, pad)
    return Part(item, start, stop - start, arrays, signature, shapes, longest(shapes), order, deadline_s, own)


def order_of(item: Item, deadline_s: float) -> float:
    """Items of a lower order go first."""
    stream = item.entry.stream
    turn_s = item.taken_s + HEAD_START_S[priority_of(stream)] + (BULK_S if is_bulk(stream) else 0.0)
    return min(turn_s, deadline_s - PATIENCE_S)


def _feature(spec: ModelSpec, name: str, value: object, rows: int) -> Array | list[Array]:
    """What a preprocess stage returned under `name`, with as many rows as the request. Raises ModelError."""
    if not isinstance(value, (list, tuple)):
        array = np.asarray(value)
        if array.ndim == 0:
            raise _wrong_stage(
                spec, f"must return arrays with rows first, or lists of rows; got {shorten(value)} for '{name}'"
            )
        return _as_many(spec, name, array, rows)
    try:
        listed = _as_many(spec, name, [as_array(one) for one in value], rows)
    except ValueError as error:
        raise _wrong_stage(spec, f"returned a row of '{name}' that is no array: {error}") from error
    alike = name not in spec.batch.pad and len({(one.shape, one.dtype) for one in listed}) == 1
    return np.stack(listed) if alike else listed


def _as_many(spec: ModelSpec, name: str, value: Rows, rows: int) -> Rows:
    if len(value) != rows:
        raise _wrong_stage(spec, f"returned {len(value)} rows of '{name}' for {rows}")
    return value


def _wrong_stage(spec: ModelSpec, problem: str) -> ModelError:
    return ModelError(f"preprocess of model '{spec.name}:{spec.version}' {problem}")


def _rows_of(spec: ModelSpec, declared: TensorSpec, array: Array) -> int | None:
    """The array's rows, or None for a single item."""
    if dtype_name(array) != declared.dtype and not _same_in_numpy(declared.dtype, array):
        raise InvalidRequest(
            f"input '{declared.name}' of model '{spec.name}' must be {declared.dtype}; got {dtype_name(array)}"
        )
    extra = array.ndim - len(declared.shape)
    if extra not in (0, 1) or not fits(declared.shape, array.shape[extra:]):
        rows = ", ".join(map(str, ("rows", *declared.shape)))
        raise InvalidRequest(
            f"input '{declared.name}' of model '{spec.name}' must have shape {list(declared.shape)} or [{rows}]; "
            f"got {list(array.shape)}"
        )
    return array.shape[0] if extra else None


def _is_single(declared: TensorSpec, array: Array) -> bool:
    """Whether an array is just one declared item, as most are. Objects need a closer look."""
    if declared.dtype == "BYTES" or array.dtype != numpy_dtype(declared.dtype):
        return False
    return fits(declared.shape, array.shape)


def _same_in_numpy(dtype: str, array: Array) -> bool:
    return dtype == "BF16" and array.dtype == np.float32


def _explain_names(spec: ModelSpec, inputs: Mapping[str, Any]) -> None:
    wanted = [one.name for one in spec.inputs]
    raise InvalidRequest(f"model '{spec.name}' takes the inputs {', '.join(wanted)}; got {', '.join(sorted(inputs))}")


def _listed(rows: set[int | None]) -> str:
    return ", ".join(sorted("one item" if count is None else str(count) for count in rows))


def _slice(rows: Array | list[Array], start: int, stop: int) -> Array:
    if isinstance(rows, list):
        return rows[start][None]
    return rows if stop - start == len(rows) else rows[start:stop]


def _signature(loaded: Loaded, arrays: Mapping[str, Array]) -> Signature:
    pad = loaded.spec.batch.pad
    # The loaded model itself, by identity: after a reload old and new items do not mix.
    signature: list[object] = [id(loaded)]
    for name, array in arrays.items():
        signature += (name, array.dtype.str, array.ndim if name in pad else array.shape[1:])
    return tuple(signature)
