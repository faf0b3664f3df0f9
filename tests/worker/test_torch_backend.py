"""What is special to torch: three kinds of files, weights, dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import ConfigError
from inference_worker.backends import open_model
from inference_worker.backends.base import Backend
from inference_worker.models.repository import discover
from tests.support.model_folders import KINDS, MODULE, TENSORS, make_model, one_line, open_one, refusal


def torch_model(models: Path, forward: str, manifest: str = "", arguments: str = "") -> Backend:
    code = f"""
import torch

class M(torch.nn.Module):
    def __init__(self, shift=0):
        super().__init__()
        self.shift = shift

    {forward}
"""
    options = f'code = "m.py:M"\n{arguments}'
    return open_one(models, f'backend = "torch"\n[torch]\n{options}\n{manifest}', {"m.py": code})


def test_a_module_gets_its_inputs_by_name_and_its_arguments(tmp_path: Path) -> None:
    backend = torch_model(
        tmp_path, "def forward(self, a, b): return a - b + self.shift", "", "arguments = {shift = 10}"
    )
    outputs = backend.infer({"b": np.array([1.0]), "a": np.array([3.0])})
    assert outputs["output"].tolist() == [12]


def test_a_module_may_write_into_its_input_without_changing_the_request(tmp_path: Path) -> None:
    backend = torch_model(tmp_path, "def forward(self, x): return x.add_(1)")
    data = np.zeros(2, np.float32).tobytes()
    assert backend.infer({"x": np.frombuffer(data, np.float32)})["output"].tolist() == [1, 1]
    assert data == bytes(8)


def test_a_module_returns_a_map_or_a_tuple(tmp_path: Path) -> None:
    declared = "".join(f'[[outputs]]\nname = "{name}"\ndtype = "FP32"\nshape = []\n' for name in "ab")
    for place, forward in enumerate(("return {'a': x, 'b': -x}", "return x, -x")):
        backend = torch_model(tmp_path / str(place), f"def forward(self, x): {forward}", declared)
        outputs = backend.infer({"x": np.ones(1, np.float32)})
        assert {name: array.tolist() for name, array in outputs.items()} == {"a": [1], "b": [-1]}


def test_bfloat16_goes_in_and_out_as_float32(tmp_path: Path) -> None:
    declared = (
        '[[inputs]]\nname = "x"\ndtype = "BF16"\nshape = []\n[[outputs]]\nname = "y"\ndtype = "BF16"\nshape = []\n'
    )
    forward = "def forward(self, x):\n        assert x.dtype == torch.bfloat16\n        return x * 2"
    output = torch_model(tmp_path, forward, declared).infer({"x": np.array([1.5], np.float32)})["y"]
    assert output.dtype == np.float32
    assert output.tolist() == [3.0]


@pytest.mark.parametrize("dtype", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
def test_every_number_goes_through_torch_unchanged(tmp_path: Path, dtype: str) -> None:
    backend = torch_model(tmp_path, "def forward(self, x): return x")
    x = np.array([[0, 1], [1, 0]], dtype)
    output = backend.infer({"x": x})["output"]
    assert output.dtype == x.dtype
    np.testing.assert_array_equal(output, x)


def test_weights_are_mapped_so_that_processes_share_their_pages(tmp_path: Path) -> None:
    spec = KINDS["torch code with safetensors"][0](tmp_path)
    assert spec.folder is not None
    backend = open_model(spec, "cpu", 1)
    assert str(spec.folder / "w.safetensors") in Path("/proc/self/maps").read_text()
    backend.close()


def test_weights_that_a_file_lacks_are_named_and_others_are_passed_over(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    manifest = f'backend = "torch"\n[torch]\ncode = "m.py:Double"\nweights = "w.safetensors"\n{TENSORS}'
    spec = make_model(tmp_path, manifest, {"m.py": MODULE})
    assert spec.folder is not None
    save_file({"head.weight": torch.eye(3)}, spec.folder / "w.safetensors")
    with pytest.raises(ConfigError, match=r"'w\.safetensors' lacks the weights linear\.weight$"):
        open_model(spec, "cpu", 1)
    save_file({"head.weight": torch.eye(3), "linear.weight": 2 * torch.eye(3)}, spec.folder / "w.safetensors")
    assert open_model(spec, "cpu", 1).infer({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[2, 2, 2]]


def test_a_state_dict_that_would_run_code_is_refused(tmp_path: Path) -> None:
    import torch

    spec = KINDS["torch code with a state dict"][0](tmp_path)
    assert spec.folder is not None
    torch.save({"linear.weight": torch.nn.Linear(3, 3)}, spec.folder / "w.pt")
    with pytest.raises(ConfigError, match=r"'w\.pt' is no state dict of .* name that \.safetensors file") as caught:
        open_model(spec, "cpu", 1)
    one_line(caught)


@pytest.mark.parametrize("kind", ["pt2", "pt"])
def test_a_file_gets_its_inputs_in_its_own_order_where_names_agree(kind: str, tmp_path: Path) -> None:
    # Given a file that takes (a, b), and a manifest that declares b before a
    import torch

    inputs = "".join(f'[[inputs]]\nname = "{name}"\ndtype = "FP32"\nshape = []\n' for name in "ba")
    spec = make_model(tmp_path, f'backend = "torch"\n[torch]\nfile = "m.{kind}"\n{inputs}')
    assert spec.folder is not None
    example = (torch.zeros(2), torch.zeros(2))
    if kind == "pt2":
        shapes = {name: {0: torch.export.Dim("rows")} for name in "ab"}
        program = torch.export.export(difference(), example, dynamic_shapes=shapes)
        torch.export.save(program, spec.folder / "m.pt2")
    else:
        with pytest.warns(DeprecationWarning, match="is deprecated"):
            torch.jit.trace(difference(), example).save(spec.folder / "m.pt")
    # Then a - b is computed, and not b - a
    outputs = open_model(spec, "cpu", 1).infer({"b": np.ones(3, np.float32), "a": np.full(3, 5, np.float32)})
    assert outputs["output"].tolist() == [4, 4, 4]


def test_a_file_must_take_as_many_inputs_as_declared(tmp_path: Path) -> None:
    spec = KINDS["torch exported program"][0](tmp_path)
    assert spec.folder is not None
    with (spec.folder / "model.toml").open("a") as manifest:
        manifest.write('[[inputs]]\nname = "z"\ndtype = "FP32"\nshape = []\n')
    with pytest.raises(ConfigError, match=r"inputs must be the 1 that 'm\.pt2' takes \(x\); 2 are declared"):
        open_model(discover(spec.folder)[0], "cpu", 1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", "[torch] must hold either file (.pt2 or .pt) or code ('model.py:Build')"),
        ('file = "m.pt"\ncode = "m.py:M"', "[torch] must hold either file"),
        ('file = "m.pt"\nweights = "w.pt"', "torch.weights goes with torch.code; torch.file has its weights in it"),
        ('file = "m.py"', "torch.file must end in .pt2 (torch.export) or .pt (TorchScript); got 'm.py'"),
        ('code = "m.py:M"', "torch.code 'm.py:M' must make an nn.Module; got a dict"),
        ('code = "m.py:Double"\nweights = "../w.pt"', "'../w.pt' leads out of "),
    ],
)
def test_wrong_torch_options_are_told_in_one_line(tmp_path: Path, options: str, told: str) -> None:
    assert told in refusal(tmp_path, f'backend = "torch"\n[torch]\n{options}', {"m.py": f"{MODULE}\nM = dict\n"})


def difference() -> Any:
    import torch

    class Difference(torch.nn.Module):
        def forward(self, a, b):  # type: ignore[no-untyped-def]
            return a - b

    return Difference().eval()
