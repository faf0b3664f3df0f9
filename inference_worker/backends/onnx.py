"""ONNX models in ONNX Runtime."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Official builds from 1.29 on else report each model to their maker, and leave files in TMPDIR and in the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from common.errors import ConfigError, InvalidRequest
from common.tensor import Array, numpy_dtype
from common.text import describe
from inference_worker.backends.base import Backend, Context, readable
from inference_worker.backends.onnx_prepared import LEAST_BYTES, WEIGHTS, Prepared, open_prepared
from inference_worker.host_cache import cache_folder
from inference_worker.models.residency import give_back
from inference_worker.models.spec import ModelSpec, TensorSpec, fits

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
#: Smaller weights stay in the graph, in bytes.
_LEAST_EXTERNAL = "1024"
_CPU = ["CPUExecutionProvider"]

log = logging.getLogger(__name__)


class OnnxBackend(Backend):
    """`file` is the .onnx file. Names and dtypes are those of the file."""

    _session: Any = None
    _prepared: Prepared | None = None

    def load(self, context: Context) -> None:
        spec = context.spec
        if "file" not in spec.options:
            raise ConfigError("onnx.file is missing; it must name the .onnx file in the model's folder")
        path, providers = context.path(spec.options["file"]), _providers(context.device)
        with readable(spec.options["file"]):
            session = self._open(path, context.threads, providers)
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
        if self._prepared is not None:
            self._prepared.close()
            self._prepared = None

    def _open(self, path: Path, threads: int, providers: list[Any]) -> Any:
        """A session over the file itself, or on a CPU over its converted form, whose weights processes share."""
        options = _session_options(threads)
        if providers == _CPU and path.stat().st_size >= LEAST_BYTES:
            self._prepared = _prepare(path)
        if self._prepared is None:
            return onnxruntime.InferenceSession(path, options, providers)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(self._prepared.path, options, providers)


def _prepare(path: Path) -> Prepared | None:
    """None where the host's cache cannot be written, or the library cannot write this model."""
    try:
        return open_prepared(path, cache_folder() / "onnx", f"onnxruntime {onnxruntime.__version__}", _convert)
    except Exception as error:
        log.warning("processes will not share the weights of %s: it could not be converted: %s", path, describe(error))
        return None


def _convert(source: Path, target: Path) -> None:
    options = _session_options(threads=1)
    options.optimized_model_filepath = str(target)
    for name, value in (
        ("optimized_model_external_initializers_file_name", WEIGHTS),
        ("optimized_model_external_initializers_min_size_in_bytes", _LEAST_EXTERNAL),
        ("save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(f"session.{name}", value)
    onnxruntime.InferenceSession(source, options, _CPU)
    give_back()


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
        return _CPU
    if kind != "cuda" or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"the installed ONNX Runtime cannot use the device '{device}'; "
            "for cuda install onnxruntime-gpu in place of onnxruntime, or use --device cpu"
        )
    return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), *_CPU]


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
        found = inputs[declared.name]
        if declared.dtype != found.dtype or not fits(found.shape, declared.shape):
            raise ConfigError(f"the input {declared} does not fit {spec.options['file']}, which has {found}")
    missing = [one.name for one in spec.outputs if one.name not in outputs]
    if missing:
        raise ConfigError(f"{spec.options['file']} has no output '{missing[0]}'; it has {', '.join(outputs)}")


def _listed(tensors: Any) -> str:
    return ", ".join(str(one) for one in tensors)


def _as(wanted: TensorSpec, array: Array) -> Array:
    """`array` in the file's dtype: integers may become floats, never the other way round."""
    return array.astype(numpy_dtype(wanted.dtype), casting="same_kind", copy=False)
