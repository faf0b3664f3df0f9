"""What is special to ONNX: names and dtypes come from the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError
from inference_worker.backends import open_model
from inference_worker.repository import discover
from tests.support.model_folders import KINDS, one_line, refusal


def test_declared_tensors_must_be_those_of_the_onnx_file(tmp_path: Path) -> None:
    spec = KINDS["onnx"][0](tmp_path)
    assert spec.folder is not None
    manifest = (spec.folder / "model.toml").read_text()
    for right, wrong, told in (
        ('"x"', '"z"', "inputs must be those of m.onnx: x: FP32[3]"),
        ('"FP32"', '"INT64"', "the input x: INT64[3] does not fit m.onnx, which has x: FP32[3]"),
        ("[3]", "[4]", "the input x: FP32[4] does not fit m.onnx, which has x: FP32[3]"),
        ("[3]", "[3, 1]", "the input x: FP32[3, 1] does not fit m.onnx, which has x: FP32[3]"),
        ('"y"', '"z"', "m.onnx has no output 'z'; it has y"),
    ):
        (spec.folder / "model.toml").write_text(manifest.replace(right, wrong, 1))
        with pytest.raises(ConfigError) as caught:
            open_model(discover(spec.folder)[0], "cpu", 1)
        assert told in one_line(caught)


def test_integers_become_the_floats_that_an_onnx_file_takes(tmp_path: Path) -> None:
    backend = open_model(KINDS["onnx"][0](tmp_path), "cpu", 1)
    assert backend.infer({"x": np.array([[1, 2, 3]])})["y"].tolist() == [[2, 4, 6]]


def test_the_onnx_file_must_be_named(tmp_path: Path) -> None:
    assert "onnx.file is missing; it must name the .onnx file" in refusal(tmp_path, 'backend = "onnx"')
