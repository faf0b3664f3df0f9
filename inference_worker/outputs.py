"""What leaves a model, against what it declares: names, dtypes, shapes, rows; and then as tensors. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from common.errors import InvalidRequest, ModelError
from common.names import MAX_NAME, check_name, shorten
from common.protocol import MAX_TENSORS
from common.tensor import Array, Tensor, as_array, dtype_name, from_numpy, numpy_dtype, to_bf16
from common.wire import MAX_BYTES
from inference_worker.backends.base import ModelRequest
from inference_worker.models.registry import Loaded
from inference_worker.models.spec import ModelSpec, TensorSpec, fits

_BF16 = "BF16"
_NAMES = f"a name has 1 to {MAX_NAME} letters, digits, '.', '_' or '-' and starts with a letter or digit"


def postprocess(loaded: Loaded, outputs: Mapping[str, Array], request: ModelRequest) -> dict[str, Array]:
    """The model's own postprocess stage, and what it gives checked. Raises ModelError, and what the stage raises."""
    return check_outputs(loaded.spec, loaded.backend.postprocess(outputs, request), request.rows)


def check_outputs(spec: ModelSpec, outputs: object, rows: int) -> dict[str, Array]:
    """The declared outputs in their dtypes; where none are declared all that there are, under names fit for the wire.

    What a model gives beside its declared outputs stays here. Raises ModelError naming the output, what
    is declared and what came.
    """
    # The first test is a tenth of the second, and this runs for each reply.
    if type(outputs) is not dict and not isinstance(outputs, Mapping):
        raise _wrong(spec, f"must give a map of arrays by output name; got {shorten(outputs)}")
    if spec.outputs:
        return {one.name: _declared(spec, one, outputs, rows) for one in spec.outputs}
    if len(outputs) > MAX_TENSORS:
        raise _wrong(spec, f"must give at most {MAX_TENSORS} outputs; it gave {len(outputs)}")
    return {name: _undeclared(spec, name, value, rows) for name, value in outputs.items()}


def not_finite(loaded: Loaded, rows: Mapping[str, Array]) -> ModelError | None:
    """What is wrong where a model that promises finite numbers gave others; None where all are."""
    for name, array in rows.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return ModelError(f"model '{loaded.spec.name}' gave NaN or infinity in its output '{name}'")
    return None


def to_array(spec: ModelSpec, name: str, value: object, dtype: str | None) -> Array:
    """What a model returned for the output `name`, as an array. Raises ModelError for rows that differ in size.

    Strings stay objects, and Python floats become float32, as models have them, unless FP64 is declared.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        array = as_array(value)
    except (ValueError, TypeError) as error:
        raise _wrong(spec, f"gave rows of its output '{name}' that cannot become an array: {error}") from error
    if array.dtype == np.float64 and dtype != "FP64" and isinstance(value, (float, list, tuple)):
        return array.astype(np.float32)
    return array


def to_tensors(spec: ModelSpec, arrays: Mapping[str, Array], single: bool) -> dict[str, Tensor]:
    """Checked outputs as they travel; `single`: without their rows dimension. Raises ModelError."""
    halves = [one.name for one in spec.outputs if one.dtype == _BF16]
    tensors = {}
    size = 0
    for name, array in arrays.items():
        try:
            # numpy hands out an element of an array of one dimension as a bare value.
            row = (array[0] if array.ndim > 1 else np.asarray(array[0])) if single else array
            tensor = to_bf16(row) if name in halves else from_numpy(row)
        except InvalidRequest as error:
            raise _wrong(spec, f"gave in its output '{name}' what cannot be sent: {error}") from error
        size += len(tensor.data)
        tensors[name] = tensor
    if size > MAX_BYTES:
        raise _wrong(
            spec, f"gave outputs of {size} bytes for one request, which can be answered with at most {MAX_BYTES}"
        )
    return tensors


def _declared(spec: ModelSpec, declared: TensorSpec, outputs: Mapping[Any, Any], rows: int) -> Array:
    name = declared.name
    if name not in outputs:
        raise _wrong(spec, f"declares the output {declared} and gave {_listed(outputs)}")
    array = outputs[name]
    if type(array) is not np.ndarray:
        array = to_array(spec, name, array, declared.dtype)
    shape = array.shape
    if not shape or not fits(declared.shape, shape[1:]):
        raise _wrong(spec, f"declares the output {declared}, with the rows first, and gave {_form(array)}")
    if shape[0] != rows:
        raise _wrong_rows(spec, name, shape, rows)
    dtype = numpy_dtype(declared.dtype)
    return array if array.dtype is dtype or array.dtype == dtype else _converted(spec, declared, array, dtype)


def _converted(spec: ModelSpec, declared: TensorSpec, array: Array, dtype: np.dtype[Any]) -> Array:
    """`array` in `dtype`, where that costs precision at most."""
    if dtype.kind == "O" and array.dtype.kind in "OUS":
        return array.astype(object)
    whole = array.dtype.kind in "iu" and dtype.kind in "iu"
    if not whole and (dtype.kind == "O" or not np.can_cast(array.dtype, dtype, "same_kind")):
        raise _wrong(spec, f"declares the output {declared} and gave {_form(array)}, which does not become that")
    if whole and not _holds(array, dtype):
        raise _too_large(spec, declared, array)
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype)
    except FloatingPointError as error:
        raise _too_large(spec, declared, array) from error


def _holds(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether an integer dtype has all values of an array of integers."""
    if array.size == 0 or np.can_cast(array.dtype, dtype):
        return True
    limits = np.iinfo(dtype)
    return limits.min <= int(array.min()) and int(array.max()) <= limits.max


def _undeclared(spec: ModelSpec, name: str, value: object, rows: int) -> Array:
    if not _is_sound(name):
        raise _wrong(spec, f"gave an output under the name {shorten(name)}, which cannot be sent: {_NAMES}")
    array = to_array(spec, name, value, None)
    if array.ndim == 0 or len(array) != rows:
        raise _wrong_rows(spec, name, array.shape, rows)
    return array


@lru_cache(maxsize=1024)
def _is_sound(name: object) -> bool:
    try:
        check_name("an output's name", name)
    except InvalidRequest:
        return False
    return True


def _wrong(spec: ModelSpec, problem: str) -> ModelError:
    return ModelError(f"model '{spec.name}:{spec.version}' {problem}")


def _wrong_rows(spec: ModelSpec, name: str, shape: tuple[int, ...], rows: int) -> ModelError:
    got = f"{shape[0]} rows" if shape else "a scalar"
    return _wrong(spec, f"gave {got} of its output '{name}' for a request of {rows}")


def _too_large(spec: ModelSpec, declared: TensorSpec, array: Array) -> ModelError:
    return _wrong(
        spec, f"declares the output {declared} and gave {_form(array)} with values beyond those of {declared.dtype}"
    )


def _form(array: Array) -> str:
    """As a declaration would say it: `FP32[2, 3]`, rows first."""
    try:
        name = dtype_name(array)
    except InvalidRequest:
        name = str(array.dtype)
    return f"{name}{list(array.shape)}"


def _listed(outputs: Mapping[Any, Any]) -> str:
    return ", ".join(shorten(name) for name in list(outputs)[:MAX_TENSORS]) or "none"
