"""What every backend promises, over each kind of model that it opens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError, InvalidRequest, ModelError
from common.tensor import Array
from inference_worker.backends import open_model
from inference_worker.backends.base import Backend, ModelRequest
from inference_worker.models.repository import discover
from inference_worker.models.spec import ModelSpec
from tests.support.model_folders import KINDS, one_line, refusal

WITH_FILE = [kind for kind, (_, file) in KINDS.items() if file]
STAGES = """
import numpy as np

class Stages:
    def load(self, context):
        self.factor = context.spec.processing["factor"]

    def preprocess(self, request):
        return {"x": request.inputs["x"] * np.float32(self.factor)}

    def postprocess(self, outputs, request):
        return {"y": outputs["y"] + np.float32(request.parameters.get("add", 0))}
"""


@pytest.fixture(params=KINDS)
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> ModelSpec:
    """A model that doubles its `x`."""
    make, _ = KINDS[request.param]
    return make(tmp_path)


@pytest.fixture
def backend(spec: ModelSpec) -> Iterator[Backend]:
    backend = open_model(spec, "cpu", 1)
    yield backend
    backend.close()


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_named_arrays_of_any_number_of_rows_come_back_named(backend: Backend, rows: int) -> None:
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    outputs = backend.infer({"x": x})
    assert list(outputs) == ["y"]
    assert outputs["y"].dtype == np.float32
    np.testing.assert_array_equal(outputs["y"], 2 * x)


def test_an_input_may_be_a_read_only_view_of_received_bytes(backend: Backend) -> None:
    data = np.arange(6, dtype=np.float32).tobytes()
    outputs = backend.infer({"x": np.frombuffer(data, np.float32).reshape(2, 3)})
    np.testing.assert_array_equal(outputs["y"], [[0, 2, 4], [6, 8, 10]])


def test_an_input_may_be_strided(backend: Backend) -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 6)[::-1, ::2]
    np.testing.assert_array_equal(backend.infer({"x": x})["y"], 2 * x)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"z": np.zeros((1, 3), np.float32)}, id="name"),
        pytest.param({"x": np.zeros((1, 4), np.float32)}, id="size"),
        pytest.param({"x": np.array([["a", "b", "c"]], dtype=object)}, id="strings"),
    ],
)
def test_a_wrong_input_is_told_in_one_line_and_breaks_nothing(backend: Backend, wrong: dict[str, Array]) -> None:
    with pytest.raises((ModelError, InvalidRequest)) as caught:
        backend.infer(wrong)
    assert one_line(caught)
    assert backend.infer({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[2, 2, 2]]


# A class gets the whole batch, and is free to look only at what it knows.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "python class"])
def test_an_input_that_the_model_does_not_know_is_an_error(kind: str, tmp_path: Path) -> None:
    backend = open_model(KINDS[kind][0](tmp_path), "cpu", 1)
    with pytest.raises((ModelError, InvalidRequest)) as caught:
        backend.infer({"x": np.zeros((1, 3), np.float32), "z": np.zeros(1, np.float32)})
    assert one_line(caught)


def test_what_a_library_raised_is_the_cause_of_the_model_error(backend: Backend) -> None:
    with pytest.raises(ModelError, match=r"infer of model 'double:1' failed: ") as caught:
        backend.infer({"x": np.zeros((1, 4), np.float32)})
    assert isinstance(caught.value.__cause__, Exception)


def test_without_stages_requests_and_outputs_pass_unchanged(backend: Backend) -> None:
    inputs = {"x": np.zeros((2, 3), np.float32)}
    request = ModelRequest(inputs, 2, {})
    assert backend.preprocess(request) is inputs
    assert backend.postprocess(inputs, request) is inputs


def test_stages_go_around_any_backend(spec: ModelSpec) -> None:
    # Given a model with a stage before it and one behind it
    folder = spec.folder
    assert folder is not None
    (folder / "stages.py").write_text(STAGES)
    with (folder / "model.toml").open("a") as manifest:
        manifest.write('\n[processing]\ncode = "stages.py:Stages"\nfactor = 10\n')
    [staged] = discover(folder)
    backend = open_model(staged, "cpu", 1)
    # When a request goes through all of them
    request = ModelRequest({"x": np.ones((2, 3), np.float32)}, 2, {"add": 1})
    features = backend.preprocess(request)
    outputs = backend.infer({name: np.asarray(array) for name, array in features.items()})
    # Then each did its part: 1 * 10 * 2 + 1
    assert backend.postprocess(outputs, request)["y"].tolist() == [[21, 21, 21]] * 2


@pytest.mark.parametrize("kind", WITH_FILE)
def test_a_broken_file_is_told_in_one_line(kind: str, tmp_path: Path) -> None:
    make, file = KINDS[kind]
    spec = make(tmp_path)
    assert spec.folder is not None
    assert file is not None
    (spec.folder / file).write_bytes(b"this is no model")
    with pytest.raises(ConfigError, match=f"model 'double:1': '{file}' cannot be read: ") as caught:
        open_model(spec, "cpu", 1)
    one_line(caught)


@pytest.mark.parametrize("kind", WITH_FILE)
def test_a_missing_file_is_told_in_one_line(kind: str, tmp_path: Path) -> None:
    make, file = KINDS[kind]
    spec = make(tmp_path)
    assert spec.folder is not None
    assert file is not None
    (spec.folder / file).unlink()
    with pytest.raises(ConfigError, match=f"model 'double:1': '{file}' is not a file: there is no ") as caught:
        open_model(spec, "cpu", 1)
    one_line(caught)


@pytest.mark.parametrize("kind", ["python function", "torch code with safetensors", "onnx"])
def test_an_unknown_device_is_told_in_one_line(kind: str, tmp_path: Path) -> None:
    spec = KINDS[kind][0](tmp_path)
    if spec.backend == "python":
        # Its code may know what to do with any device.
        open_model(spec, "npu:3", 1).close()
        return
    with pytest.raises(ConfigError, match="npu:3"):
        open_model(spec, "npu:3", 1)


def test_the_digest_changes_with_any_file_of_the_model(backend: Backend, spec: ModelSpec) -> None:
    assert spec.folder is not None
    (spec.folder / "vocabulary.txt").write_text("new")
    changed = open_model(spec, "cpu", 1)
    assert len(backend.weights) == len(changed.weights) == 40
    assert changed.weights != backend.weights


def test_closing_twice_is_harmless(backend: Backend) -> None:
    backend.close()
    backend.close()


@pytest.mark.parametrize(("backend", "library"), [("torch", "torch"), ("onnx", "onnxruntime")])
def test_a_library_that_is_not_installed_is_told_with_its_extra(
    backend: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a Python that finds no such library
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"inference_worker.backends.{backend}", raising=False)
    told = refusal(tmp_path, f'backend = "{backend}"')
    assert f"needs the package '{library}', which is not there; pip install 'inference-worker[{backend}]'" in told
