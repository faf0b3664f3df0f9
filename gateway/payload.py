"""What a caller hands in, made ready for the wire: natural values to tensors, a request to a parcel. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.errors import InvalidRequest, Overloaded
from common.keys import PoolKeys
from common.names import check_name
from common.protocol import BARE_INPUT, MAX_TENSORS
from common.scripts import Answer, Submission
from common.tensor import Array, Tensor, from_numpy, numpy_dtype, to_tensor
from common.wire import pack, unpack_map
from gateway.catalog import Declared, ModelInfo

#: A longer request is stored under a key of its own and the entry refers to it, so that streams stay small.
INLINE_UP_TO = 256 * 1024


class Parcel(NamedTuple):
    """An encoded request on its way to a pool. A `payload` is stored before the submission that names its key.

    `pinned`: the catalog chose the version in it; `version` is what the caller asked for. `generation`: of the
    models that its id, a digest, is of; None where the id is no digest.
    """

    pool: str
    submission: Submission
    payload: bytes | None
    version: str | None
    pinned: bool
    generation: bytes | None

    @property
    def is_shared(self) -> bool:
        """Whether other clients may have the same request under the same id."""
        return self.generation is not None

    @property
    def size(self) -> int:
        """Bytes that travel to Redis."""
        return len(self.payload) if self.payload is not None else len(self.submission.value)


def parcel(
    keys: PoolKeys,
    request_id: str,
    stream: int,
    tenant: str,
    data: bytes,
    version: str | None = None,
    pinned: bool = False,
    generation: bytes | None = None,
) -> Parcel:
    """`data`, an encoded request, for the stream's entry or, over INLINE_UP_TO bytes, for a key of its own."""
    if len(data) <= INLINE_UP_TO:
        return Parcel(keys.pool, Submission(request_id, stream, tenant, "d", data), None, version, pinned, generation)
    reference = Submission(request_id, stream, tenant, "r", keys.payload(request_id), len(data))
    return Parcel(keys.pool, reference, data, version, pinned, generation)


def left_behind(parcels: Sequence[Parcel], answers: Sequence[Answer]) -> list[str]:
    """The ids of those whose stored payload nobody will come for, as submit has refused them.

    Under an id that is shared the payload may be another client's by now, so it stays until its TTL.
    """
    refused = (one for one, answer in zip(parcels, answers, strict=True) if isinstance(answer, Overloaded))
    return [one.submission.request_id for one in refused if one.payload is not None and not one.is_shared]


def readdressed(old: Parcel, request_id: str, timeout_ms: int, unpin: bool) -> Parcel:
    """The same request under another id, with the time that is left for it; unpinned, in the version asked for."""
    _, stream, tenant, _, value, _ = old.submission
    message = unpack_map("the request", old.payload if old.payload is not None else value)  # type: ignore[arg-type]
    message["id"] = request_id
    message["timeout_ms"] = timeout_ms
    if unpin:
        del message["version"]
        if old.version is not None:
            message["version"] = old.version
    pinned = old.pinned and not unpin
    return parcel(PoolKeys(old.pool), request_id, stream, tenant, pack(message), old.version, pinned)


def tensors(inputs: object, info: ModelInfo | None) -> dict[str, Tensor]:
    """`inputs` by name: a map of natural values, or a bare value for a model's only input.

    Python numbers take the dtype that the model declares; arrays keep their own. Raises
    InvalidRequest naming the input.
    """
    declared = info.inputs if info is not None else ()
    if isinstance(inputs, np.ndarray) or not isinstance(inputs, Mapping):
        name = declared[0].name if len(declared) == 1 else BARE_INPUT
        return {name: _tensor(name, inputs, declared)}
    if not 1 <= len(inputs) <= MAX_TENSORS:
        raise InvalidRequest(f"inputs must hold 1 to {MAX_TENSORS} tensors; got {len(inputs)}")
    return {check_name("an input name", name): _tensor(name, value, declared) for name, value in inputs.items()}


def _tensor(name: str, value: object, declared: tuple[Declared, ...]) -> Tensor:
    try:
        if isinstance(value, np.ndarray):
            return from_numpy(value)
        dtype = next((one.dtype for one in declared if one.name == name), None)
        return to_tensor(_as_declared(value, dtype) if isinstance(value, (int, float, list, tuple)) else value)
    except InvalidRequest as error:
        raise InvalidRequest(f"inputs.{name}: {error.message}") from None


def _as_declared(value: Any, dtype: str | None) -> Any:
    """Python numbers as an array of `dtype` where they fit it; everything else unchanged."""
    if dtype is None or dtype == "BYTES":
        return value
    try:
        array = np.asarray(value)
    except ValueError:
        return value  # ragged: told of by whoever makes a tensor of it
    wanted = numpy_dtype(dtype)
    if array.dtype.kind not in "iuf" or wanted.kind not in "iuf" or (array.dtype.kind == "f" and wanted.kind != "f"):
        return value
    if wanted.kind != "f" and not _within(array, np.iinfo(wanted)):
        return value
    return array.astype(wanted)


def _within(array: Array, limits: np.iinfo[Any]) -> bool:
    return array.size == 0 or (limits.min <= array.min() and array.max() <= limits.max)
