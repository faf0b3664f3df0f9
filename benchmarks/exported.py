"""MiniLM in each form that a backend opens: eager with safetensors, exported (.pt2), and ONNX, made from the first."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from inference_worker.backends import open_model
from inference_worker.models.repository import discover
from inference_worker.models.spec import ModelSpec
from inference_worker.models.weights import resolve

MINILM = ROOT / "examples" / "models" / "minilm"
WEIGHTS = "model.safetensors"
INPUTS = ("input_ids", "attention_mask")
MOST_TOKENS = 256

_TENSORS = "".join(f'[[inputs]]\nname = "{name}"\ndtype = "INT64"\nshape = [-1]\n\n' for name in INPUTS)
OUTPUT = "sentence_embedding"  # "embedding" is a node of the graph that torch.onnx makes
_OUTPUT = f'[[outputs]]\nname = "{OUTPUT}"\ndtype = "FP32"\nshape = [384]\n'
_BATCH = "[batch]\nrows = 64\npad = { input_ids = 0, attention_mask = 0 }\n\n"


def eager(models: Path, name: str = "eager") -> ModelSpec:
    """The module of examples/models/minilm with its weights, without the tokenizer: what goes in are tokens.

    The weights are a copy, which no process outside this benchmark maps; all under `models` have the same file.
    """
    code = (MINILM / "1" / "model.py").read_text()
    spec = _folder(models, name, "torch", f'code = "model.py:MiniLM"\nweights = "{WEIGHTS}"', {"model.py": code})
    assert spec.folder is not None
    if not (models / WEIGHTS).exists():
        (minilm,) = discover(MINILM)
        shutil.copyfile(resolve(minilm.options["weights"], None), models / WEIGHTS)
    if not (spec.folder / WEIGHTS).exists():
        (spec.folder / WEIGHTS).hardlink_to(models / WEIGHTS)
    return spec


def exported(models: Path) -> ModelSpec:
    """By torch.export."""
    import torch

    spec = _folder(models, "exported", "torch", 'file = "minilm.pt2"', {})
    assert spec.folder is not None
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens", max=MOST_TOKENS)
    program = torch.export.export(_module(models), _example(), dynamic_shapes={n: {0: rows, 1: tokens} for n in INPUTS})
    torch.export.save(program, spec.folder / "minilm.pt2")
    return spec


def onnx(models: Path) -> ModelSpec:
    """By torch.onnx.export, which needs onnxscript."""
    import torch

    spec = _folder(models, "onnx", "onnx", 'file = "minilm.onnx"', {})
    assert spec.folder is not None
    logging.disable(logging.WARNING)  # It tells of each operator of torchvision that it does not find.
    torch.onnx.export(
        _module(models),
        _example(),
        spec.folder / "minilm.onnx",
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        dynamic_shapes={name: {0: "rows", 1: "tokens"} for name in INPUTS},
        external_data=False,
        verbose=False,
    )
    logging.disable(logging.NOTSET)
    return spec


FORMS = {"torch eager": eager, "torch.export": exported, "ONNX Runtime": onnx}


def _folder(models: Path, name: str, backend: str, options: str, files: dict[str, str]) -> ModelSpec:
    folder = models / name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    manifest = f'backend = "{backend}"\n\n[{backend}]\n{options}\n\n{_BATCH}{_TENSORS}{_OUTPUT}'
    for file, text in {"model.toml": manifest, **files}.items():
        (folder / file).write_text(text)
    (spec,) = discover(folder)
    return spec


def _module(models: Path) -> Any:
    # Through the pipeline to the torch backend's own module.
    return open_model(eager(models, "source"), "cpu", 1)._backend._module  # type: ignore[attr-defined]


def _example() -> tuple[Any, Any]:
    import torch

    return torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64)
