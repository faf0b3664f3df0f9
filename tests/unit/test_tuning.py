"""What is proposed from what was measured, and what is measured of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError
from inference_worker.cli.tune import doubled, lines
from inference_worker.models.tuning import Measured, largest_difference, propose, tune
from tests.support.model_folders import make_model, onnx, python_function, torch_exported, torch_safetensors


def measured(variant: str, rows: int, rows_per_s: float) -> Measured:
    return Measured(variant, rows, 1000 * rows / rows_per_s, rows_per_s, 0.0 if variant == "fp32" else 0.01)


def test_the_fastest_variant_is_proposed_with_the_smallest_batch_that_is_nearly_as_fast() -> None:
    proposal = propose(
        [
            *(measured("fp32", rows, rate) for rows, rate in ((1, 50.0), (8, 100.0))),
            *(measured("bf16", rows, rate) for rows, rate in ((1, 60.0), (8, 194.0), (16, 200.0), (32, 198.0))),
        ],
        length=12,
    )

    assert proposal is not None
    assert (proposal.variant, proposal.rows, proposal.padded, proposal.speedup) == ("bf16", 8, 96, 2.0)
    assert proposal.difference == 0.01


def test_without_padding_no_limit_of_it_is_proposed() -> None:
    proposal = propose([measured("fp32", 4, 10.0)], length=None)

    assert proposal is not None
    assert proposal.padded is None


def test_the_difference_is_that_of_the_floats() -> None:
    exact = {"y": np.array([1.0, 2.0]), "label": np.array([1, 2])}

    assert largest_difference({"y": np.array([1.0, 1.5]), "label": np.array([7, 7])}, exact) == 0.5
    assert largest_difference({"label": np.array([7])}, {"label": np.array([1])}) is None


@pytest.mark.parametrize(("most", "sizes"), [(1, (1,)), (4, (1, 2, 4)), (12, (1, 2, 4, 8, 12))])
def test_batch_sizes_are_doubled_up_to_the_models_limit(most: int, sizes: tuple[int, ...]) -> None:
    assert doubled(most) == sizes


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_a_torch_model_is_measured_with_each_option_and_told_which_are_impossible(tmp_path: Path) -> None:
    found = tune(torch_safetensors(tmp_path), "cpu", 1, (1, 2), 0.1)

    tried = {one.variant for one in found.measured}
    assert {"fp32", "bf16", "fp16", "int8"} <= tried
    assert {(one.variant, one.rows) for one in found.measured} == {(name, rows) for name in tried for rows in (1, 2)}
    assert "this one has none" in found.impossible["channels_last"]
    assert tried | found.impossible.keys() == {"fp32", "bf16", "fp16", "int8", "compile", "channels_last"}
    assert "differs from fp32 by" in list(lines(found))[1]


def test_variants_of_a_module_without_weights_make_up_the_same_ones(tmp_path: Path) -> None:
    spec = make_model(
        tmp_path,
        'backend = "torch"\n[torch]\ncode = "m.py:Linear"\n'
        '[[inputs]]\nname = "x"\ndtype = "FP32"\nshape = [8]\n[sample]\nx = [1, 2, 3, 4, 5, 6, 7, 8]\n',
        {
            "m.py": "import torch\n\n\nclass Linear(torch.nn.Module):\n    def __init__(self):\n"
            "        super().__init__()\n        self.linear = torch.nn.Linear(8, 8)\n\n"
            "    def forward(self, x):\n        return self.linear(x)\n"
        },
    )

    found = tune(spec, "cpu", 1, (1,), 0.05)

    [half] = [one for one in found.measured if one.variant == "fp16"]
    assert half.difference is not None
    assert half.difference < 0.05


@pytest.mark.parametrize("make", [onnx, python_function])
def test_other_models_are_measured_as_they_are(tmp_path: Path, make: object) -> None:
    found = tune(make(tmp_path), "cpu", 1, (1,), 0.05)  # type: ignore[operator]

    assert [(one.variant, one.rows) for one in found.measured] == [(found.measured[0].variant, 1)]
    assert found.measured[0].variant in ("onnx", "python")


def test_a_model_without_a_sample_cannot_be_tuned(tmp_path: Path) -> None:
    spec = make_model(
        tmp_path, 'backend = "python"\n[python]\ncode = "m.py:f"\n', {"m.py": "def f(x):\n    return x\n"}
    )

    with pytest.raises(ConfigError, match="declares neither inputs nor a sample to run; add one"):
        tune(spec, "cpu", 1, (1,), 0.05)


def test_an_exported_program_is_measured_compiled_too(tmp_path: Path) -> None:
    from inference_worker.models.tuning import variants

    assert [one.name for one in variants(torch_exported(tmp_path))] == ["fp32", "compile"]
