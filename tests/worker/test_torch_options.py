"""How a torch model runs: dtype, compile, channels_last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError
from inference_worker.backends.base import Backend
from inference_worker.backends.torch_options import check_compiler
from tests.support.model_folders import MODULE, TENSORS, open_one, refusal, torch_exported

IMAGES = """
import torch

class Seen(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 1)

    def forward(self, x):
        formats = (self.conv.weight, x)
        assert all(one.is_contiguous(memory_format=torch.channels_last) for one in formats)
        return self.conv(x)
"""
DTYPES = """
import torch

class Dtypes(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x, ids):
        assert ids.dtype == torch.int64
        y = self.linear(x)
        return {"y": y, "size": torch.full((len(x),), y.element_size())}
"""


LAYERS = """
import torch

def make():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 32, bias=False)
    )
"""


def layers(models: Path, option: str) -> Backend:
    return model(models, option, LAYERS, "make")


def model(models: Path, option: str, code: str = MODULE, name: str = "Double") -> Backend:
    return open_one(models, f'backend = "torch"\n[torch]\ncode = "m.py:{name}"\n{option}\n', {"m.py": code})


@pytest.mark.parametrize(("dtype", "size"), [("fp32", 4), ("bf16", 2), ("fp16", 2)])
def test_floats_are_computed_in_the_dtype_and_come_out_as_float32(tmp_path: Path, dtype: str, size: int) -> None:
    backend = model(tmp_path, f'dtype = "{dtype}"', DTYPES, "Dtypes")

    outputs = backend.infer({"x": np.ones((2, 4), np.float32), "ids": np.ones((2, 1), np.int64)})

    assert outputs["size"].tolist() == [size] * 2
    assert outputs["y"].dtype == np.float32


def test_int8_layers_give_nearly_what_the_floats_give(tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((16, 64)).astype(np.float32)

    exact, found = (layers(tmp_path, f'dtype = "{dtype}"').infer({"input": x})["output"] for dtype in ("fp32", "int8"))

    assert 0 < np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


def test_channels_last_reaches_weights_and_images(tmp_path: Path) -> None:
    outputs = model(tmp_path, "channels_last = true", IMAGES, "Seen").infer({"x": np.ones((2, 3, 5, 5), np.float32)})

    assert outputs["output"].shape == (2, 2, 5, 5)


# torch's own compiler imports what torch deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_a_compiled_module_gives_what_it_gives_otherwise(tmp_path: Path) -> None:
    check_or_skip()
    x = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    plain, compiled = layers(tmp_path, ""), layers(tmp_path, "compile = true")

    for rows in (1, 5, 3):
        np.testing.assert_allclose(
            compiled.infer({"input": x[:rows]})["output"], plain.infer({"input": x[:rows]})["output"], atol=1e-5
        )


def check_or_skip() -> None:
    import os

    try:
        check_compiler(os.environ)
    except ConfigError as error:
        pytest.skip(str(error))


def test_compile_without_a_compiler_is_told_when_the_model_loads(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_compiler({"PATH": str(tmp_path)})
    assert str(caught.value) == (
        "torch.compile needs a C++ compiler, and there is no g++ or clang++ or c++ on the PATH; install one, or leave "
        "torch.compile out"
    )
    with pytest.raises(ConfigError, match="there is no mycc on the PATH"):
        check_compiler({"PATH": str(tmp_path), "CXX": "mycc -O2"})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ('dtype = "int4"', "torch.dtype must be one of fp32, fp16, bf16, int8; got 'int4'"),
        ('compile = "yes"', "torch.compile must be true or false; got 'yes'"),
        ('dtype = "int8"\ncompile = true', "torch.compile does not take the int8 layers of torch.dtype 'int8'"),
        ("channels_last = true", "torch.channels_last is for modules with convolutions of images; this one has none"),
    ],
)
def test_options_that_cannot_be_are_told_in_one_line(tmp_path: Path, options: str, told: str) -> None:
    manifest = f'backend = "torch"\n[torch]\ncode = "m.py:Double"\n{options}\n'

    assert told in refusal(tmp_path, manifest, {"m.py": MODULE})


def test_int8_needs_linear_layers(tmp_path: Path) -> None:
    manifest = 'backend = "torch"\n[torch]\ncode = "m.py:Seen"\ndtype = "int8"\n'

    assert "quantizes linear layers, and this module has none" in refusal(tmp_path, manifest, {"m.py": IMAGES})


@pytest.mark.parametrize("option", ['dtype = "bf16"', "channels_last = true"])
def test_a_file_runs_as_it_was_saved(tmp_path: Path, option: str) -> None:
    told = refusal(tmp_path, f'backend = "torch"\n[torch]\nfile = "m.pt2"\n{option}\n{TENSORS}')

    assert "goes with torch.code; torch.file was saved as it is to run" in told


def test_an_exported_programs_weights_are_the_files_own_pages(tmp_path: Path) -> None:
    from inference_worker.backends import open_model

    spec = torch_exported(tmp_path)
    assert spec.folder is not None
    backend = open_model(spec, "cpu", 1)

    assert str(spec.folder / "m.pt2") in Path("/proc/self/maps").read_text()
    assert backend.infer({"x": np.ones((2, 3), np.float32)})["y"].tolist() == [[2, 2, 2]] * 2
