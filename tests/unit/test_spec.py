"""Declarations: what model.toml may say, and how it says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from inference_worker.models.manifest import parse_declaration, parse_toml
from inference_worker.models.spec import BatchLimits, ModelSpec, StageLimits, TensorSpec

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


def test_a_model_that_is_not_deterministic_is_declared_so() -> None:
    assert parsed(f"deterministic = false\n{SMALLEST}").deterministic is False
    assert parsed(SMALLEST).deterministic is True


def test_the_smallest_manifest_takes_every_default() -> None:
    assert parsed(SMALLEST) == ModelSpec(
        "m", "1", "python", folder=Path("models/m/1"), options={"code": "model.py:run"}
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ('backend = "python', "models/m/1/model.toml:1: this is not TOML: "),
        ("", "models/m/1/model.toml: backend is missing; it must be one of torch, onnx, python"),
        ('backend = "jax"', "model.toml:1: backend must be one of torch, onnx, python; got 'jax'"),
        ('backend = "python"', "model.toml: python.code is missing; it must be of the form 'file.py:Name'"),
        ('backend = "python"\n[python]\ncode = "run"', "model.toml:3: python.code must be of the form 'file.py:Name'"),
        ('backend = "onnx"\n[onnx]\nfil = "x"', "model.toml:3: onnx.fil is unknown; known here: file"),
        ('backend = "onnx"\n[torch]\nfile = "x"', "model.toml:2: torch is unknown; known here: aliases, backend"),
        ('cahce_ttl = 3\nbackend = "onnx"', "model.toml:1: cahce_ttl is unknown; known here: "),
        ('backend = "onnx"\ncache_ttl = "1h"', "cache_ttl must be a number of seconds from 0 to 1000000000; got"),
        ('backend = "onnx"\ncache_ttl = inf', "cache_ttl must be a number of seconds from 0 to 1000000000; got inf"),
        ('backend = "onnx"\ncheck_finite = 1', "model.toml:2: check_finite must be true or false; got 1"),
        ('backend = "onnx"\npool = "a b"', "model.toml:2: pool is wrong: pool must be 1 to 128 letters"),
        ('backend = "onnx"\naliases = "x"', "model.toml:2: aliases must be a list of strings; got 'x'"),
        ('backend = "onnx"\naliases = ["a/b"]', "model.toml:2: aliases is wrong: an alias must be 1 to 128"),
        ('backend = "onnx"\naliases = ["1"]', "model.toml:2: aliases holds '1', which is the version itself"),
        ('backend = "onnx"\n[batch]\nrows = 0', "model.toml:3: batch.rows must be an integer from 1 to 65536; got 0"),
        ('backend = "onnx"\n[batch]\nrows = true', "batch.rows must be an integer from 1 to 65536; got True"),
        ('backend = "onnx"\n[batch]\nrows = 100000000000', "batch.rows must be an integer from 1 to 65536; got 10000"),
        ('backend = "onnx"\n[batch]\npadded = 2147483648', "batch.padded must be an integer from 1 to 2147483647; got"),
        ('backend = "onnx"\n[batch]\nlinger_ms = 1e9', "linger_ms must be a number of milliseconds from 0 to 60000"),
        ('backend = "onnx"\ncache_ttl = 1e300', "model.toml:2: cache_ttl must be a number of seconds from 0 to 1000"),
        ('backend = "onnx"\ncache_ttl = nan', "model.toml:2: cache_ttl must be a number of seconds from 0 to 1000"),
        ('backend = "onnx"\ndeterministic = 0', "model.toml:2: deterministic must be true or false; got 0"),
        ('backend = "python"\npython.code = "m.py:m"\ndeterministic = false\ncache_ttl = 60',
         "model.toml:4: cache_ttl must be 0 where deterministic is false; got 60: a cached result would stand"),
        ('backend = "onnx"\n[batch]\nsize = 4', "model.toml:3: batch.size is unknown; known here: bytes, linger_ms,"),
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
        ('name = "y"\ndtype = "FP32"\nshape = [2147483648]', "integers from -1 (any size) to 2147483647; got a list"),
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
        ({"inputs": {"x": f"FP32[{'9' * 5000}]"}}, "m.py: run: inputs.x must have a form such as 'FP32[-1]'"),
        ({"outputs": {f"y{number}": "FP32[]" for number in range(65)}}, "outputs must be at most 64; got 65"),
        ({"inputs": {"x": "FP32[2147483648]"}}, "inputs[0].shape must be a list of at most 15 integers from -1 (any"),
        ({"deterministic": False, "cache_ttl": 60}, "m.py: run: cache_ttl must be 0 where deterministic is false"),
        ({"inputs": {"x": "FLOAT[1]"}}, "m.py: run: inputs[0].dtype must be one of BOOL"),
        ({"inputs": "FP32[1]"}, "m.py: run: inputs must map names to forms such as"),
        ({"rows": "many"}, "m.py: run: batch.rows must be an integer from 1 to 65536; got 'many'"),
        ({"version": 2}, "m.py: run: version is wrong: a version must be 1 to 128"),
        ({"cahce_ttl": 2}, "m.py: run: cahce_ttl is unknown; known here: "),
    ],
)
def test_what_python_declares_wrongly_is_told_with_its_file_and_name(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_declaration({"name": "m", **wrong}, "m.py: run", "m.py:run", Path())
    assert told in str(caught.value)


def test_a_batch_may_take_five_minutes_where_nothing_is_declared_and_else_what_is() -> None:
    assert parsed(SMALLEST).limit_s == 300
    assert parsed(f"timeout = 30\n{SMALLEST}").limit_s == 30
    assert refusal(f"timeout = 0\n{SMALLEST}").endswith(":1: timeout must be a number of seconds above 0; got 0")


def test_a_stage_has_as_many_workers_as_are_declared_and_without_them_runs_in_line() -> None:
    text = "[stages.preprocess]\nworkers = 2\nprocesses = true\n[stages.postprocess]\nworkers = 0\n"
    spec = parsed(f'{SMALLEST}[processing]\ncode = "s.py:S"\n{text}')
    assert spec.stages == {"preprocess": StageLimits(2, processes=True)}


def test_a_stage_is_declared_in_python_as_in_a_file() -> None:
    declared = {"name": "m", "stages": {"preprocess": {"workers": 2}}}
    assert parse_declaration(declared, "m.py", "m.py:M", Path(".")).stages == {"preprocess": StageLimits(2)}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[stages.infer]\nworkers = 1", ":4: stages.infer is unknown; known here: postprocess, preprocess"),
        (
            "[stages.preprocess]\nworkers = -1",
            ":5: stages.preprocess.workers must be an integer from 0 to 256; got -1",
        ),
        (
            "[stages.preprocess]\nprocesses = true",
            ":5: stages.preprocess.processes needs workers: as many processes as that says",
        ),
        (
            "[stages.preprocess]\nworkers = 1\nprocesses = true",
            ":6: stages.preprocess.processes needs processing.code: a stage's process loads that, and not the model",
        ),
    ],
)
def test_a_stage_that_cannot_be_is_refused(text: str, problem: str) -> None:
    assert refusal(f"{SMALLEST}{text}").endswith(problem)


def test_a_stage_with_workers_that_nothing_defines_is_refused() -> None:
    message = refusal('backend = "onnx"\n[onnx]\nfile = "m.onnx"\n[stages.postprocess]\nworkers = 1')
    assert message.endswith("stages.postprocess has workers, and no processing.code defines that stage")
