"""The Open Inference Protocol's infer call, with Triton's extensions: a body to a request, a result to a body. Pure.

https://github.com/kserve/open-inference-protocol and Triton's extensions schedule_policy (priority, timeout),
parameters and binary_tensor_data. Fields that are not known are passed over, as Triton does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from common.errors import InvalidRequest
from common.names import check_name, shorten
from common.protocol import MAX_TENSORS
from common.tensor import Tensor, item_size
from gateway.call import Call
from gateway.catalog import Declared
from gateway.http import jsontensors, oip_binary
from gateway.http.oip_binary import Buffers
from gateway.http.status import Trouble
from gateway.oip import binary as binary_data
from gateway.oip.parameters import call_of, check_id, refuse_classification, refuse_shared_memory
from gateway.result import Result


class Ask(NamedTuple):
    """One infer request. `binary` is whether an output is wanted as binary data, `binary_default` for the others."""

    id: str | None
    call: Call
    inputs: Mapping[str, Tensor]
    binary: Mapping[str, bool]
    binary_default: bool


class Told(NamedTuple):
    """A response. `json_bytes` is the length of its JSON where binary data follow it."""

    body: bytes
    json_bytes: int | None


def parse(model: str, version: str | None, body: bytes, header_length: bytes | None, cacheable: bool) -> Ask:
    """`header_length` is the header Inference-Header-Content-Length. Raises InvalidRequest."""
    head, rest = (body, memoryview(b"")) if header_length is None else oip_binary.split(body, header_length)
    message = jsontensors.parse("the request", head)
    if not isinstance(message, dict):
        raise InvalidRequest(f"the request must be a JSON object; got {shorten(message)}")
    parameters = _map("parameters", message.get("parameters"))
    wanted, binary = _outputs(message.get("outputs"))
    return Ask(
        check_id(message.get("id")),
        call_of(model, version, parameters, wanted, cacheable),
        _inputs(message.get("inputs"), Buffers(rest)),
        binary,
        bool(parameters.get("binary_data_output", False)),
    )


def parse_raw(model: str, version: str | None, body: bytes, declared: Sequence[Declared], cacheable: bool) -> Ask:
    """A body that is one input's bytes (Inference-Header-Content-Length 0). Raises InvalidRequest.

    Its shape must follow from the size: at most one dimension is free. BYTES is one element, without its length.
    """
    if len(declared) != 1:
        raise InvalidRequest(f"a raw request takes a model with one declared input; '{model}' has {len(declared)}")
    [one] = declared
    if one.dtype == "BYTES":
        framed = len(body).to_bytes(4, "little") + body
        tensor = binary_data.tensor_of(f"inputs.{one.name}", one.dtype, [1] * len(one.shape), memoryview(framed))
    else:
        shape = _shape_of_raw(one, len(body))
        tensor = binary_data.tensor_of(f"inputs.{one.name}", one.dtype, shape, memoryview(body))
    return Ask(None, Call(model, version, cache=cacheable), {one.name: tensor}, {}, True)


def form_of(ask: Ask, result: Result) -> str:
    """How `encode` says it: a letter for each output, b as binary data or j as JSON."""
    return "".join("b" if ask.binary.get(name, ask.binary_default) else "j" for name in result.names())


def encode(ask: Ask, result: Result) -> Told:
    """Raises ModelError for what JSON cannot hold."""
    outputs, buffers = [], []
    for name in result.names():
        tensor = result.tensor(name)
        told: dict[str, Any] = {"name": name, "datatype": tensor.dtype, "shape": tensor.shape}
        if ask.binary.get(name, ask.binary_default):
            buffers.append(binary_data.bytes_of(tensor))
            told["parameters"] = {"binary_data_size": len(buffers[-1])}
        else:
            told["data"] = jsontensors.values_of(name, tensor)
        outputs.append(told)
    message: dict[str, Any] = {"model_name": result.model, "model_version": result.version, "outputs": outputs}
    if ask.id is not None:
        message["id"] = ask.id
    head = jsontensors.dump(message)
    return Told(b"".join((head, *buffers)), len(head)) if buffers else Told(head, None)


def shape_error(trouble: Trouble) -> bytes:
    return jsontensors.dump({"error": trouble.message})


def _inputs(inputs: object, buffers: Buffers) -> dict[str, Tensor]:
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= MAX_TENSORS:
        raise InvalidRequest(f"inputs must be a list of 1 to {MAX_TENSORS} tensors; got {shorten(inputs)}")
    found: dict[str, Tensor] = {}
    for index, one in enumerate(inputs):
        if not isinstance(one, dict):
            raise InvalidRequest(f"inputs[{index}] must be an object; got {shorten(one)}")
        name = check_name(f"inputs[{index}].name", one.get("name"))
        if name in found:
            raise InvalidRequest(f"inputs[{index}].name '{name}' is there twice")
        found[name] = _input(f"inputs.{name}", one, buffers)
    buffers.check_empty()
    return found


def _input(field: str, one: Mapping[str, Any], buffers: Buffers) -> Tensor:
    parameters = _map(f"{field}.parameters", one.get("parameters"))
    refuse_shared_memory(field, parameters)
    if "binary_data_size" in parameters:
        data = buffers.take(field, parameters["binary_data_size"])
        return binary_data.tensor_of(field, one.get("datatype"), one.get("shape"), data)
    return jsontensors.tensor_of(field, one.get("datatype"), one.get("shape"), one.get("data"))


def _outputs(outputs: object) -> tuple[tuple[str, ...] | None, dict[str, bool]]:
    """(the names that are wanted, which of them say whether they are wanted as binary data)"""
    if outputs is None or outputs == []:
        return None, {}
    if not isinstance(outputs, list) or len(outputs) > MAX_TENSORS:
        raise InvalidRequest(f"outputs must be a list of at most {MAX_TENSORS} outputs; got {shorten(outputs)}")
    names, binary = [], {}
    for index, one in enumerate(outputs):
        if not isinstance(one, dict):
            raise InvalidRequest(f"outputs[{index}] must be an object; got {shorten(one)}")
        names.append(check_name(f"outputs[{index}].name", one.get("name")))
        parameters = _map(f"outputs[{index}].parameters", one.get("parameters"))
        refuse_shared_memory(f"outputs[{index}]", parameters)
        refuse_classification(f"outputs[{index}]", parameters)
        if "binary_data" in parameters:
            binary[names[-1]] = bool(parameters["binary_data"])
    return tuple(names), binary


def _map(field: str, value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field} must be an object; got {shorten(value)}")
    return value


def _shape_of_raw(one: Declared, size: int) -> list[int]:
    """[rows, *shape] where the size is that of whole rows; a free dimension instead of rows where there is one."""
    free = [index for index, dimension in enumerate(one.shape) if dimension == -1]
    fixed = item_size(one.dtype)
    for dimension in one.shape:
        fixed *= 1 if dimension == -1 else dimension
    if len(free) > 1 or fixed == 0 or size % fixed:
        raise InvalidRequest(
            f"a raw request's shape must follow from its size; {size} bytes do not tell one for {one.dtype} "
            f"{list(one.shape)}"
        )
    if not free:
        return [size // fixed, *one.shape]
    return [1, *(size // fixed if dimension == -1 else dimension for dimension in one.shape)]
