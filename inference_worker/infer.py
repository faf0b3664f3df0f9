"""One call of a model: as many rows of every output as went in, or an error."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.errors import ModelError
from common.tensor import Array
from inference_worker.models.registry import Loaded


class WrongRowsError(ModelError):
    """The model returned another number of rows than it got; whose they are cannot be told, so halves run again."""


def infer(loaded: Loaded, arrays: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """A collated batch's outputs, as arrays with `rows` rows. Raises WrongRowsError, or what the model raises."""
    return with_rows(loaded, loaded.backend.infer(arrays), rows)


def with_rows(loaded: Loaded, outputs: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """What a model gave, as arrays with `rows` rows. Raises WrongRowsError."""
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != rows:
            raise WrongRowsError(
                f"model '{loaded.spec.name}' returned {_returned(array)} '{name}' for a batch of {rows}; "
                "an output is an array with the rows first"
            )
    return arrays


def _returned(array: Array) -> str:
    """What came in an array's place, in front of an output's name."""
    if array.ndim:
        return f"{len(array)} rows of"
    return "a scalar for" if array.dtype.kind in "biufc" else f"a value of type {type(array.item()).__name__} for"
