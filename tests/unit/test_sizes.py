"""Sizes of memory as people write them, and numbers on the command line."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from common.errors import ConfigError
from inference_worker.cli.options import FiniteRange
from inference_worker.models.manifest import parse_size, parse_toml


@pytest.mark.parametrize(
    ("text", "size"), [("1B", 1), ("500MB", 500 * 10**6), ("1.5GB", 1_500_000_000), ("0.5 kiB", 512)]
)
def test_a_size_may_have_a_fraction(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["0MB", "0.1B", "1.GB", ".5GB", "-1MB", "1e3MB", "nanB", "5"])
def test_nothing_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match=r"a size must be above 0 and have a form such as '500MB'"):
        parse_size(text)
    with pytest.raises(ConfigError, match=r"bytes must be a size above 0 such as '500MB'"):
        parse_toml(f'backend = "onnx"\n[batch]\nbytes = "{text}"\n[onnx]\nfile = "m.onnx"\n', "f", "m", "1", Path())


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_number_on_the_command_line_is_finite(value: str) -> None:
    with pytest.raises(click.BadParameter):
        FiniteRange(min=0).convert(value, None, None)
    assert FiniteRange(min=0).convert("0.5", None, None) == 0.5
