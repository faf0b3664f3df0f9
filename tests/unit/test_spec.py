"""Declarations: what model.toml may say, and how it says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from inference_worker.manifest import parse_declaration, parse_toml
from inference_worker.spec import BatchLimits, ModelSpec, TensorSpec

FULL = """
backend = "torch"
pool = "gpu"
cache_ttl = 60
aliases = ["embed"]
check_finite = true

[torch]
code = "model.py:Build"
weights = "weights.safetensors"
arguments = { hidden = 64 }

[processing]
code = "tokenizer.py:Tokenizer"
vocabulary = "vocab.txt"

[batch]
rows = 8
padded = 400
linger_ms = 2.5
pad = { ids = 0, mask = 0 }

[sample]
text = "hello"

[[inputs]]
name = "text"
dtype = "BYTES"
shape = []

[[outputs]]
name = "embedding"
dtype = "FP32"
shape = [-1, 3]
"""
SMALLEST = 'backend = "python"\n[python]\ncode = "model.py:run"\n'


def parsed(text: str) -> ModelSpec:
    return parse_toml(text, "models/m/1/model.toml", "m", "1", Path("models/m/1"))


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_full_manifest_becomes_a_spec() -> None:
    assert parsed(FULL) == ModelSpec(
        name="m",
        version="1",
        backend="torch",
        pool="gpu",
        inputs=(TensorSpec("text", "BYTES", ()),),
        outputs=(TensorSpec("embedding", "FP32", (-1, 3)),),
        batch=BatchLimits(rows=8, padded=400, linger_ms=2.5, pad={"ids": 0, "mask": 0}),
        cache_ttl_s=60.0,
        aliases=("embed",),
        check_finite=True,
        folder=Path("models/m/1"),
        options={"code": "model.py:Build", "weights": "weights.safetensors", "arguments": {"hidden": 64}},
        processing={"code": "tokenizer.py:Tokenizer", "vocabulary": "vocab.txt"},
        sample={"text": "hello"},
    )


def test_the_smallest_manifest_takes_every_default() -> None:
    assert parsed(SMALLEST) == ModelSpec(
        "m", "1", "python", folder=Path("models/m/1"), options={"code": "model.py:run"}
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ('backend = "python', "models/m/1/model.toml: this is not TOML: "),
        ("", "models/m/1/model.toml: backend is missing; it must be one of torch, onnx, python"),
        ('backend = "jax"', "model.toml:1: backend must be one of torch, onnx, python; got 'jax'"),
        ('backend = "python"', "model.toml: python.code is missing; it must be of the form 'file.py:Name'"),
        ('backend = "python"\n[python]\ncode = "run"', "model.toml:3: python.code must be of the form 'file.py:Name'"),
        ('backend = "onnx"\n[onnx]\nfil = "x"', "model.toml:3: onnx.fil is unknown; known here: file"),
        ('backend = "onnx"\n[torch]\nfile = "x"', "model.toml:2: torch is unknown; known here: aliases, backend"),
        ('cahce_ttl = 3\nbackend = "onnx"', "model.toml:1: cahce_ttl is unknown; known here: "),
        ('backend = "onnx"\ncache_ttl = "1h"', "model.toml:2: cache_ttl must be a number of seconds from 0; got '1h'"),
        ('backend = "onnx"\ncache_ttl = inf', "model.toml:2: cache_ttl must be a number of seconds from 0; got inf"),
        ('backend = "onnx"\ncheck_finite = 1', "model.toml:2: check_finite must be true or false; got 1"),
        ('backend = "onnx"\npool = "a b"', "model.toml:2: pool is wrong: pool must be 1 to 128 letters"),
        ('backend = "onnx"\naliases = "x"', "model.toml:2: aliases must be a list of strings; got 'x'"),
        ('backend = "onnx"\naliases = ["a/b"]', "model.toml:2: aliases is wrong: an alias must be 1 to 128"),
        ('backend = "onnx"\naliases = ["1"]', "model.toml:2: aliases holds '1', which is the version itself"),
        ('backend = "onnx"\n[batch]\nrows = 0', "model.toml:3: batch.rows must be an integer from 1; got 0"),
        ('backend = "onnx"\n[batch]\nrows = true', "model.toml:3: batch.rows must be an integer from 1; got True"),
        ('backend = "onnx"\n[batch]\nsize = 4', "model.toml:3: batch.size is unknown; known here: linger_ms, pad"),
        ('backend = "onnx"\n[batch]\npadded = 9', "model.toml:3: batch.padded counts the elements of the arrays in"),
        ('backend = "onnx"\n[batch]\npad = {x = "0"}', "model.toml:3: batch.pad must be a table of array names and"),
        ('backend = "onnx"\nbatch = 4', "model.toml:2: batch must be a table; got 4"),
        ('backend = "onnx"\ninputs = ["x"]', "model.toml:2: inputs must be a list of tables; got a list of 1"),
        ('backend = "onnx"\n[processing]\nx = 1', "model.toml: processing.code is missing; it must be of the form"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_told_with_its_line_what_is_expected_and_what_was_found(wrong: str, told: str) -> None:
    assert told in refusal(wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("", "model.toml: inputs[1].name is missing; it must be a string that is not empty"),
        ('name = "a b"', "model.toml:9: inputs[1].name is wrong: a tensor's name must be 1 to 128"),
        ('name = "y"\ndtype = "float"', "model.toml:10: inputs[1].dtype must be one of BOOL, INT8"),
        ('name = "y"\ndtype = "FP32"\nshape = [-2]', "model.toml:11: inputs[1].shape must be a list of at most 15"),
        ('name = "y"\ndtype = "FP32"\nshape = 3', "model.toml:11: inputs[1].shape must be a list of at most 15"),
        ('name = "x"\ndtype = "FP32"\nshape = []', "model.toml:4: inputs must have names that differ; 'x' is there"),
        ('name = "y"\ndtype = "FP32"\nshape = []\nunit = 1', "model.toml:12: inputs[1].unit is unknown; known here:"),
    ],
)
def test_a_wrong_input_is_told_with_its_own_line(wrong: str, told: str) -> None:
    # Given a first input that is right, behind it comes the wrong one.
    right = '[[inputs]]\nname = "x"\ndtype = "FP32"\nshape = [-1]'
    assert told in refusal(f"{SMALLEST}{right}\n[[inputs]]\n{wrong}")


def test_a_sample_must_hold_the_declared_inputs() -> None:
    told = refusal(FULL.replace('text = "hello"', 'txt = "hello"'))
    assert "sample must hold the inputs text; got txt" in told


@pytest.mark.parametrize(("name", "version"), [("a b", "1"), ("m", "v 1"), ("m", "")])
def test_a_folder_must_have_the_name_of_a_model_and_of_a_version(name: str, version: str) -> None:
    with pytest.raises(ConfigError, match="must be 1 to 128 letters"):
        parse_toml(SMALLEST, "model.toml", name, version, Path())


def test_python_declares_with_the_same_keys_and_checks() -> None:
    declared = {"name": "m", "inputs": {"x": "FP32[-1, 3]", "text": "BYTES[]"}, "rows": 4, "cache_ttl": 1}
    assert parse_declaration(declared, "m.py: run", "m.py:run", Path("here")) == ModelSpec(
        name="m",
        version="1",
        backend="python",
        inputs=(TensorSpec("x", "FP32", (-1, 3)), TensorSpec("text", "BYTES", ())),
        batch=BatchLimits(rows=4),
        cache_ttl_s=1.0,
        folder=Path("here"),
        options={"code": "m.py:run"},
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"inputs": {"x": "FP32"}}, "m.py: run: inputs.x must have a form such as 'FP32[-1]'"),
        ({"inputs": {"x": "FP32[a]"}}, "m.py: run: inputs.x must have a form such as 'FP32[-1]'"),
        ({"inputs": {"x": "FLOAT[1]"}}, "m.py: run: inputs[0].dtype must be one of BOOL"),
        ({"inputs": "FP32[1]"}, "m.py: run: inputs must map names to forms such as"),
        ({"rows": "many"}, "m.py: run: batch.rows must be an integer from 1; got 'many'"),
        ({"version": 2}, "m.py: run: version is wrong: a version must be 1 to 128"),
        ({"cahce_ttl": 2}, "m.py: run: cahce_ttl is unknown; known here: "),
    ],
)
def test_what_python_declares_wrongly_is_told_with_its_file_and_name(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_declaration({"name": "m", **wrong}, "m.py: run", "m.py:run", Path())
    assert told in str(caught.value)
