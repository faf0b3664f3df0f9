"""Functions and classes in plain Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import InvalidRequest, ModelError
from common.protocol import BARE_INPUT
from inference_worker.backends import open_model
from inference_worker.backends.base import Backend, ModelRequest
from inference_worker.models.repository import discover
from tests.support.model_folders import TENSORS, one_line, open_one, refusal


def python_model(models: Path, code: str, manifest: str = "", name: str = "run") -> Backend:
    return open_one(models, f'backend = "python"\n[python]\ncode = "m.py:{name}"\n{manifest}', {"m.py": code})


def test_the_digest_is_the_same_in_every_process_and_place(tmp_path: Path) -> None:
    # Given a file that declares a model and imports another one beside it
    home = tmp_path / "home"
    home.mkdir()
    (home / "parts.py").write_text("FACTOR = 2\n")
    code = (
        "from inference_worker import model\nfrom .parts import FACTOR\n@model\ndef double(x):\n    return x * FACTOR\n"
    )
    (home / "m.py").write_text(code)
    (home / "unrelated.py").write_text("")
    # When it is opened here, and elsewhere in another process
    here = open_model(discover(home / "m.py")[0], "cpu", 1).weights
    away = shutil.copytree(home, tmp_path / "away")
    (away / "unrelated.py").write_text("x = 1")
    # Then both name its results alike, until one of its two files changes
    assert _digest_elsewhere(away / "m.py") == here
    (away / "parts.py").write_text("FACTOR = 3\n")
    assert _digest_elsewhere(away / "m.py") != here


def _digest_elsewhere(path: Path) -> str:
    program = (
        "import sys; from pathlib import Path; from inference_worker.models.repository import discover; "
        "from inference_worker.backends import open_model; "
        "print(open_model(discover(Path(sys.argv[1]))[0], 'cpu', 1).weights)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "random", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(path)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60, env=environment
    ).stdout.strip()


@pytest.mark.parametrize(
    ("returned", "dtype", "values"),
    [
        ("[1.5, 2.5]", np.float32, [1.5, 2.5]),
        ("[1, 2]", np.int64, [1, 2]),
        ("[True, False]", np.bool_, [True, False]),
        ("['ab', 'c']", np.object_, ["ab", "c"]),
        ("[b'a\\0', b'']", np.object_, [b"a\0", b""]),
        ("[['a', 'b'], ['c', 'd']]", np.object_, [["a", "b"], ["c", "d"]]),
        ("np.array([1.5, 2.5])", np.float64, [1.5, 2.5]),
    ],
)
def test_a_list_becomes_the_array_that_it_looks_like(
    tmp_path: Path, returned: str, dtype: type, values: list[object]
) -> None:
    backend = python_model(tmp_path, f"import numpy as np\ndef run(x):\n    return {returned}\n")
    output = backend.infer({"x": np.zeros(2)})["output"]
    assert output.dtype == dtype
    assert output.tolist() == values


def test_python_floats_keep_their_precision_where_fp64_is_declared(tmp_path: Path) -> None:
    declared = '[[outputs]]\nname = "n"\ndtype = "FP64"\nshape = []'
    backend = python_model(tmp_path, "def run(x):\n    return [0.1, 0.2]\n", declared)
    assert backend.infer({"x": np.zeros(2)})["n"].tolist() == [0.1, 0.2]


def test_rows_that_differ_in_size_are_a_model_error(tmp_path: Path) -> None:
    backend = python_model(tmp_path, "def run(x):\n    return [[1], [2, 3]]\n")
    told = "model 'm:1' gave rows of its output 'output' that cannot become an array: "
    with pytest.raises(ModelError, match=told) as caught:
        backend.infer({"x": np.zeros(2)})
    one_line(caught)


def test_outputs_must_be_as_many_as_declared(tmp_path: Path) -> None:
    declared = "".join(f'[[outputs]]\nname = "{name}"\ndtype = "FP32"\nshape = []\n' for name in "ab")
    backend = python_model(tmp_path, "def run(x):\n    return x\n", declared)
    with pytest.raises(ModelError, match=r"returned 1 outputs where 2 are declared \(a, b\); declare each, or"):
        backend.infer({"x": np.zeros(2)})
    both = python_model(tmp_path / "both", "def run(x):\n    return x, x\n", declared)
    assert list(both.infer({"x": np.zeros(2)})) == ["a", "b"]


def test_an_argument_with_a_default_may_be_left_out(tmp_path: Path) -> None:
    backend = python_model(tmp_path, "def run(x, y=1):\n    return x + y\n")
    assert backend.infer({"x": np.zeros(2)})["output"].tolist() == [1, 1]
    with pytest.raises(InvalidRequest, match=r"model 'm' takes the inputs \(x, y=1\); got z"):
        backend.infer({"z": np.zeros(2)})


def test_a_bare_value_is_for_a_functions_only_parameter(tmp_path: Path) -> None:
    backend = python_model(tmp_path / "one", "def run(x):\n    return x\n")
    assert backend.infer({BARE_INPUT: np.ones(2)})["output"].tolist() == [1, 1]
    two = python_model(tmp_path / "two", "def run(x, y):\n    return x\n")
    with pytest.raises(InvalidRequest, match=r"model 'm' takes the inputs \(x, y\); got input"):
        two.infer({BARE_INPUT: np.ones(2)})


@pytest.mark.parametrize(
    ("code", "name", "told"),
    [
        ("", "run", "defines no 'run', which 'm.py:run' refers to"),
        ("run = 3", "run", "'m.py:run' must be a function or a subclass of inference_worker.Model"),
        ("class run:\n    pass", "run", "must be a function or a subclass of inference_worker.Model"),
        ("from inference_worker import Model\nclass M(Model):\n    pass", "M", "the class M is abstract"),
        ("def run(z):\n    return z", "run", "the function 'run' takes (z); the declared inputs are x"),
        ("import nothing_like_this", "run", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_code_that_is_no_model_is_told_in_one_line(tmp_path: Path, code: str, name: str, told: str) -> None:
    manifest = f'backend = "python"\n[python]\ncode = "m.py:{name}"\n{TENSORS}'
    assert told in refusal(tmp_path, manifest, {"m.py": code})


def test_a_model_that_fails_to_load_is_a_model_error(tmp_path: Path) -> None:
    code = """
from inference_worker import Model

class M(Model):
    def load(self, context):
        1 / 0

    def infer(self, batch):
        return batch["x"]
"""
    with pytest.raises(ModelError, match="load of model 'm:1' failed: ZeroDivisionError: division by zero"):
        python_model(tmp_path, code, name="M")


def test_a_stage_must_have_something_to_do(tmp_path: Path) -> None:
    manifest = 'backend = "python"\n[python]\ncode = "m.py:run"\n[processing]\ncode = "m.py:Nothing"\n'
    told = refusal(tmp_path, manifest, {"m.py": "def run(x): return x\nclass Nothing: pass\n"})
    assert "processing.code 'm.py:Nothing' defines neither of the methods preprocess and postprocess" in told


def test_with_a_stage_before_it_a_functions_parameters_are_the_stages_arrays(tmp_path: Path) -> None:
    code = "def run(size): return size\nclass Sizes:\n    def preprocess(self, request):\n"
    code += "        return {'size': [one.size for one in request.inputs['x']]}\n"
    manifest = f'backend = "python"\n[python]\ncode = "m.py:run"\n[processing]\ncode = "m.py:Sizes"\n{TENSORS}'
    backend = open_one(tmp_path, manifest.replace('"y"', '"size"'), {"m.py": code})
    request = ModelRequest({"x": np.zeros((2, 3), np.float32)}, 2, {})
    assert backend.infer({"size": np.array(backend.preprocess(request)["size"])})["size"].tolist() == [3, 3]


def test_a_model_class_has_stages_of_its_own(tmp_path: Path) -> None:
    code = """
from inference_worker import Model

class M(Model):
    def preprocess(self, request):
        return {"size": [one.size for one in request.inputs["x"]]}

    def infer(self, batch):
        return batch["size"]

    def postprocess(self, outputs, request):
        return {"sizes": outputs["output"] + request.rows}
"""
    backend = python_model(tmp_path, code, name="M")
    request = ModelRequest({"x": np.zeros((2, 5))}, 2, {})
    assert backend.preprocess(request) == {"size": [5, 5]}
    assert backend.postprocess({"output": np.array([5, 5])}, request)["sizes"].tolist() == [7, 7]
