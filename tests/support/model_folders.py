"""Folders of models that compute the same, one for each kind that a backend opens: y = x doubled, rows of 3."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError, InferenceError
from inference_worker.backends import open_model
from inference_worker.backends.base import Backend
from inference_worker.models.repository import discover
from inference_worker.models.spec import ModelSpec

TENSORS = """
[[inputs]]
name = "x"
dtype = "FP32"
shape = [3]

[[outputs]]
name = "y"
dtype = "FP32"
shape = [3]
"""
MODULE = """
import torch

class Double(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3, bias=False)

    def forward(self, x):
        return self.linear(x)
"""


def make_model(models: Path, manifest: str, files: dict[str, str] | None = None, name: str = "double") -> ModelSpec:
    """Write models/<name>/1 and find it."""
    folder = models / name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.toml").write_text(manifest)
    for file, text in (files or {}).items():
        (folder / file).write_text(text)
    [spec] = discover(folder)
    return spec


def open_one(models: Path, manifest: str, files: dict[str, str] | None = None) -> Backend:
    """Write a model and open it on the CPU."""
    return open_model(make_model(models, manifest, files, "m"), "cpu", 1)


def refusal(models: Path, manifest: str, files: dict[str, str] | None = None) -> str:
    """Why a model cannot be opened, told in one line."""
    with pytest.raises(ConfigError) as caught:
        open_one(models, manifest, files)
    return one_line(caught)


def one_line(error: pytest.ExceptionInfo[InferenceError]) -> str:
    """An error's message, which must be fit for a terminal and a log."""
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def python_function(models: Path) -> ModelSpec:
    code = "import numpy as np\n\ndef double(x):\n    return x @ (2 * np.eye(3, dtype=np.float32))\n"
    return make_model(models, f'backend = "python"\n[python]\ncode = "m.py:double"\n{TENSORS}', {"m.py": code})


def python_class(models: Path) -> ModelSpec:
    code = """
import numpy as np
from inference_worker import Model

class Double(Model):
    def load(self, context):
        self.matrix = context.spec.options["factor"] * np.eye(3)

    def infer(self, batch):
        return {"y": (batch["x"] @ self.matrix).tolist()}
"""
    manifest = f'backend = "python"\n[python]\ncode = "m.py:Double"\nfactor = 2.0\n{TENSORS}'
    return make_model(models, manifest, {"m.py": code})


def torch_safetensors(models: Path) -> ModelSpec:
    import torch
    from safetensors.torch import save_file

    manifest = f'backend = "torch"\n[torch]\ncode = "m.py:Double"\nweights = "w.safetensors"\n{TENSORS}'
    return _with_file(
        models, manifest, "w.safetensors", lambda path: save_file({"linear.weight": 2 * torch.eye(3)}, path)
    )


def torch_state_dict(models: Path) -> ModelSpec:
    import torch

    manifest = f'backend = "torch"\n[torch]\ncode = "m.py:Double"\nweights = "w.pt"\n{TENSORS}'
    return _with_file(models, manifest, "w.pt", lambda path: torch.save({"linear.weight": 2 * torch.eye(3)}, path))


def torch_exported(models: Path) -> ModelSpec:
    def save(path: Path) -> None:
        import torch

        example = (torch.zeros(2, 3),)
        program = torch.export.export(_module(), example, dynamic_shapes={"x": {0: torch.export.Dim("rows")}})
        torch.export.save(program, path)

    return _with_file(models, f'backend = "torch"\n[torch]\nfile = "m.pt2"\n{TENSORS}', "m.pt2", save)


def torch_script(models: Path) -> ModelSpec:
    def save(path: Path) -> None:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(torch.jit.trace(_module(), torch.zeros(2, 3)), path)

    return _with_file(models, f'backend = "torch"\n[torch]\nfile = "m.pt"\n{TENSORS}', "m.pt", save)


def onnx(models: Path) -> ModelSpec:
    def save(path: Path) -> None:
        from onnx import TensorProto, helper, save_model

        rows: list[str | int | None] = ["rows", 3]
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "matrix"], ["y"])],
            "double",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, rows)],
            [helper.make_tensor("matrix", TensorProto.FLOAT, [3, 3], [2, 0, 0, 0, 2, 0, 0, 0, 2])],
        )
        # Versions that the oldest supported ONNX Runtime reads.
        save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)

    return _with_file(models, f'backend = "onnx"\n[onnx]\nfile = "m.onnx"\n{TENSORS}', "m.onnx", save)


#: Every kind of model that a backend opens: its maker, and the file that holds its weights.
KINDS: dict[str, tuple[Callable[[Path], ModelSpec], str | None]] = {
    "python function": (python_function, None),
    "python class": (python_class, None),
    "torch code with safetensors": (torch_safetensors, "w.safetensors"),
    "torch code with a state dict": (torch_state_dict, "w.pt"),
    "torch exported program": (torch_exported, "m.pt2"),
    "torch script": (torch_script, "m.pt"),
    "onnx": (onnx, "m.onnx"),
}


def _with_file(models: Path, manifest: str, file: str, save: Callable[[Path], None]) -> ModelSpec:
    spec = make_model(models, manifest, {"m.py": MODULE})
    assert spec.folder is not None
    save(spec.folder / file)
    return spec


def _module() -> Any:
    import torch

    # From a file, and not from this one: TorchScript reads its source.
    namespace: dict[str, type] = {}
    exec(MODULE, namespace)
    module = namespace["Double"]()
    module.load_state_dict({"linear.weight": 2 * torch.eye(3)})
    return module.eval()
