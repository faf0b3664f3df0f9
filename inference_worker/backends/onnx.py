"""ONNX models in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime

from common.errors import ConfigError, InvalidRequest
from common.tensor import Array, numpy_dtype
from inference_worker.backends.base import Backend, Context, readable
from inference_worker.spec import ModelSpec, TensorSpec

#: ONNX Runtime's element types that numpy can hold, by the protocol's names.
DTYPES = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
#: ONNX Runtime's log goes to standard error: from errors on.
_LOG_ERRORS = 3


class OnnxBackend(Backend):
    """`file` is the .onnx file. Names and dtypes are those of the file."""

    _session: Any = None

    def load(self, context: Context) -> None:
        spec = context.spec
        if "file" not in spec.options:
            raise ConfigError("onnx.file is missing; it must name the .onnx file in the model's folder")
        path, providers = context.path(spec.options["file"]), _providers(context.device)
        with readable(spec.options["file"]):
            session = onnxruntime.InferenceSession(path, _session_options(context.threads), providers)
        self._spec = spec
        self._inputs = {one.name: _tensor_spec(one) for one in session.get_inputs()}
        self._outputs = [_tensor_spec(one).name for one in session.get_outputs()]
        if "code" not in spec.processing:
            # With stages around it a model's declared inputs and outputs are those of the stages.
            _check_declared(spec, self._inputs, self._outputs)
        self._session = session

    def infer(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        if batch.keys() != self._inputs.keys():
            raise InvalidRequest(
                f"model '{self._spec.name}' takes the inputs {', '.join(self._inputs)}; got {', '.join(batch)}"
            )
        feed = {name: _as(self._inputs[name], array) for name, array in batch.items()}
        return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))

    def close(self) -> None:
        self._session = None


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS
    return options


def _providers(device: str) -> list[Any]:
    """Raises ConfigError for a device that the installed ONNX Runtime cannot use."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    if kind != "cuda" or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"the installed ONNX Runtime cannot use the device '{device}'; "
            "for cuda install onnxruntime-gpu in place of onnxruntime, or use --device cpu"
        )
    return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]


def _tensor_spec(node: Any) -> TensorSpec:
    """A session's input or output, without its rows dimension. Raises ConfigError for a type that numpy lacks."""
    if node.type not in DTYPES:
        raise ConfigError(f"'{node.name}' has the ONNX type {node.type}; export it as one of {', '.join(DTYPES)}")
    # A dimension of variable size is a name there, or None.
    sizes = tuple(size if isinstance(size, int) else -1 for size in node.shape or ())
    return TensorSpec(node.name, DTYPES[node.type], sizes[1:])


def _check_declared(spec: ModelSpec, inputs: Mapping[str, TensorSpec], outputs: list[str]) -> None:
    """Raises ConfigError where model.toml and the file disagree."""
    if spec.inputs and {one.name for one in spec.inputs} != inputs.keys():
        raise ConfigError(f"inputs must be those of {spec.options['file']}: {_listed(inputs.values())}")
    for declared in spec.inputs:
        if not _agree(declared, inputs[declared.name]):
            raise ConfigError(
                f"the input {declared} does not fit {spec.options['file']}, which has {inputs[declared.name]}"
            )
    missing = [one.name for one in spec.outputs if one.name not in outputs]
    if missing:
        raise ConfigError(f"{spec.options['file']} has no output '{missing[0]}'; it has {', '.join(outputs)}")


def _agree(declared: TensorSpec, found: TensorSpec) -> bool:
    if declared.dtype != found.dtype or len(declared.shape) != len(found.shape):
        return False
    return all(found_size in (-1, size) for size, found_size in zip(declared.shape, found.shape, strict=True))


def _listed(tensors: Any) -> str:
    return ", ".join(str(one) for one in tensors)


def _as(wanted: TensorSpec, array: Array) -> Array:
    """`array` in the file's dtype: integers may become floats, never the other way round."""
    return array.astype(numpy_dtype(wanted.dtype), casting="same_kind", copy=False)
