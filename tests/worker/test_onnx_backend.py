"""What is special to ONNX: names and dtypes come from the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError
from inference_worker.backends import open_model
from inference_worker.backends.base import Backend
from inference_worker.host_cache import CACHE_VARIABLE
from inference_worker.models.repository import discover
from inference_worker.models.spec import ModelSpec
from tests.support.model_folders import KINDS, make_model, one_line, refusal


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


@pytest.fixture
def large(tmp_path: Path) -> ModelSpec:
    """y = x times a matrix of 2 MiB, which is worth sharing."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    matrix = np.random.default_rng(1).standard_normal((700, 700)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "matrix"], ["y"])],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 700])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 700])],
        [numpy_helper.from_array(matrix, "matrix")],
    )
    spec = make_model(tmp_path, 'backend = "onnx"\n[onnx]\nfile = "m.onnx"\n', name="large")
    assert spec.folder is not None
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save_model(model, spec.folder / "m.onnx")
    np.save(spec.folder / "expected.npy", matrix.sum(axis=0))
    return spec


def computes(spec: ModelSpec, backend: Backend) -> bool:
    assert spec.folder is not None
    found = backend.infer({"x": np.ones((1, 700), np.float32)})["y"][0]
    return np.allclose(found, np.load(spec.folder / "expected.npy"), atol=1e-3)


def test_large_weights_are_mapped_from_the_hosts_cache_so_that_processes_share_them(
    large: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    backend = open_model(large, "cpu", 1)

    (weights,) = (tmp_path / "cache" / "onnx").glob("*/model.weights")
    assert str(weights) in Path("/proc/self/maps").read_text()
    assert computes(large, backend)
    backend.close()


def test_a_cache_that_cannot_be_written_costs_the_sharing_and_not_the_model(
    large: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))

    assert computes(large, open_model(large, "cpu", 1))
    assert "processes will not share the weights of" in caplog.text


def test_the_library_reports_nothing_and_leaves_no_files(tmp_path: Path) -> None:
    # Given an empty home and an empty folder for temporary files; on CI systems it would report nothing anyway
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}

    subprocess.run([sys.executable, "-c", "import inference_worker.backends.onnx"], env=environment, check=True)

    assert [*tmp_path.rglob("*")] == []
