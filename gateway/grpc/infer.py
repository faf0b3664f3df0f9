"""A ModelInferRequest to what the service takes, a result to a ModelInferResponse. Pure.

Numbers are taken and given as raw bytes without a copy of ours; outputs are raw always, as Triton's are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.errors import InvalidRequest
from common.names import check_name
from common.protocol import MAX_TENSORS
from common.tensor import Tensor, from_numpy, numpy_dtype
from gateway.call import Call
from gateway.grpc.pb import inference_pb2 as pb
from gateway.oip import binary
from gateway.oip.parameters import call_of, check_id, refuse_classification, refuse_shared_memory
from gateway.result import Result

#: Where InferTensorContents holds the values of each dtype; FP16 and BF16 have no place there.
_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_WIDE = {"int_contents": np.dtype(np.int32), "uint_contents": np.dtype(np.uint32)}


class Ask(NamedTuple):
    """`id` is the caller's own name of it, "" where it has none."""

    id: str
    call: Call
    inputs: Mapping[str, Tensor]


def parse(message: pb.ModelInferRequest, cacheable: bool) -> Ask:
    """Raises InvalidRequest."""
    parameters = _parameters("parameters", message.parameters)
    call = call_of(message.model_name, message.model_version or None, parameters, _outputs(message.outputs), cacheable)
    return Ask(check_id(message.id) or "", call, _inputs(message.inputs, message.raw_input_contents))


def fill(response: pb.ModelInferResponse, id: str, result: Result) -> None:
    """Put a result into an empty response. Raises InternalError for one that cannot be read."""
    response.model_name = result.model
    response.model_version = result.version
    response.id = id
    for name in result.names():
        tensor = result.tensor(name)
        response.outputs.add(name=name, datatype=tensor.dtype, shape=tensor.shape)
        data = binary.bytes_of(tensor)
        response.raw_output_contents.append(data if isinstance(data, bytes) else bytes(data))


def _parameters(field: str, parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    return {name: _value(f"{field}.{name}", one) for name, one in parameters.items()} if parameters else {}


def _value(field: str, parameter: pb.InferParameter) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    if kind is None:
        raise InvalidRequest(f"{field} must have a value: one of bool_param, int64_param, string_param, double_param")
    return getattr(parameter, kind)


def _outputs(outputs: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor]) -> tuple[str, ...] | None:
    """The names of the outputs that are wanted; None: all."""
    if not outputs:
        return None
    if len(outputs) > MAX_TENSORS:
        raise InvalidRequest(f"outputs must hold at most {MAX_TENSORS} outputs; got {len(outputs)}")
    for index, one in enumerate(outputs):
        if one.parameters:
            parameters = _parameters(f"outputs[{index}].parameters", one.parameters)
            refuse_shared_memory(f"outputs[{index}]", parameters)
            refuse_classification(f"outputs[{index}]", parameters)
    return tuple(check_name(f"outputs[{index}].name", one.name) for index, one in enumerate(outputs))


def _inputs(
    inputs: Sequence[pb.ModelInferRequest.InferInputTensor], raw_contents: Iterable[bytes]
) -> dict[str, Tensor]:
    if not 1 <= len(inputs) <= MAX_TENSORS:
        raise InvalidRequest(f"inputs must hold 1 to {MAX_TENSORS} tensors; got {len(inputs)}")
    for index, one in enumerate(inputs):
        if one.parameters:
            refuse_shared_memory(f"inputs[{index}]", _parameters(f"inputs[{index}].parameters", one.parameters))
    raw = list(raw_contents)
    if raw and len(raw) != len(inputs):
        raise InvalidRequest(
            f"raw_input_contents must hold one for each of {len(inputs)} inputs, or none; got {len(raw)}"
        )
    found: dict[str, Tensor] = {}
    for index, one in enumerate(inputs):
        name = check_name(f"inputs[{index}].name", one.name)
        if name in found:
            raise InvalidRequest(f"inputs[{index}].name '{name}' is there twice")
        found[name] = _raw(f"inputs.{name}", one, raw[index]) if raw else _typed(f"inputs.{name}", one)
    return found


def _raw(field: str, one: pb.ModelInferRequest.InferInputTensor, data: bytes) -> Tensor:
    if one.HasField("contents"):
        raise InvalidRequest(f"{field} must come in raw_input_contents or in contents; got both")
    return binary.tensor_of(field, one.datatype, tuple(one.shape), data)


def _typed(field: str, one: pb.ModelInferRequest.InferInputTensor) -> Tensor:
    dtype, shape = one.datatype, tuple(one.shape)
    count = binary.check_declared(field, dtype, shape)
    where = _FIELDS.get(dtype)
    if where is None:
        raise InvalidRequest(f"{field} must come in raw_input_contents: contents has no field for {dtype}")
    values = getattr(one.contents, where)
    if len(values) != count:
        raise InvalidRequest(f"{field}.contents.{where} must hold {count} values for its shape; got {len(values)}")
    if dtype == "BYTES":
        return Tensor(dtype, shape, binary.texts_of(values))
    wanted = numpy_dtype(dtype)
    array = np.array(values, dtype=_WIDE.get(where, wanted))
    if array.dtype != wanted and array.size:
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise InvalidRequest(f"{field}.contents must hold integers from {limits.min} to {limits.max} for {dtype}")
    return from_numpy(array.astype(wanted, copy=False).reshape(shape))
