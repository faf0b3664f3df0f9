"""Whether a model may run code here. Files of ONNX graphs hold none; Python does, and so may what torch opens.

A TorchScript file (.pt) and an exported program (.pt2) count as code: `torch.export.load` falls back to
`torch.load(weights_only=False)`, which is pickle, and evaluates the file's expressions by `sympy.sympify`;
`torch.jit.load` runs the archive's own `__setstate__`.
"""

from __future__ import annotations

from common.errors import ConfigError
from inference_worker.models.spec import ModelSpec

#: Whose files are data, whatever is in them. Every other backend is taken to run code.
_DATA_BACKENDS = ("onnx",)


def check_trust(spec: ModelSpec) -> None:
    """Raises ConfigError for a model with code that comes from where its operator trusts nobody."""
    option = code_in(spec)
    if option and not spec.origin.trusted:
        key, _, file = option.partition("=")
        raise ConfigError(
            f"model '{spec.name}:{spec.version}' of {spec.origin.url} would run code, '{file}' ({key}): whoever may "
            "write there may do anything here. Give --trust-code (INFERENCE_WORKER_TRUST_CODE=1) if you trust them, "
            "or publish the model as ONNX, which needs no trust"
        )


def code_in(spec: ModelSpec) -> str:
    """`key=file`, the first option by which the model runs code; empty where it has none."""
    if "code" in spec.processing:
        return f"processing.code={spec.processing['code']}"
    if spec.backend in _DATA_BACKENDS:
        return ""
    key = next((key for key in ("code", "file") if key in spec.options), "backend")
    return f"{spec.backend}.{key}={spec.options.get(key, spec.backend)}"
