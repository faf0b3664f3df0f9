"""What a real worker sends of a model's outputs: as declared, or a model_error that says what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from common.errors import InferenceError, ModelError
from common.wire import MAX_BYTES
from gateway import Client
from tests.support.running import workers

MODELS = f"""
import numpy as np
from inference_worker import Model, model

SOUND = {{"x": np.float32(0)}}

@model(inputs={{"x": "FP32[]"}}, outputs={{"y": "FP32[2]"}}, sample=SOUND)
def wide(x):
    return np.zeros((len(x), 3 if x.any() else 2), np.float32)

@model(inputs={{"x": "FP32[]"}}, outputs={{"y": "INT64[]"}}, sample=SOUND)
def floats(x):
    return x if x.any() else x.astype(np.int64)

@model(inputs={{"x": "FP32[]"}}, outputs={{"y": "FP16[]", "z": "BF16[]"}})
def halves(x):
    return {{"y": x.astype(np.float64), "z": x, "scratch": x}}

@model(inputs={{"x": "FP32[]"}}, sample=SOUND)
def names(x):
    return {{"y" if not x.any() else "no name at all": x}}

@model(inputs={{"x": "FP32[]"}}, sample=SOUND)
def surrogates(x):
    return ["\\ud800" if one else "" for one in x]

@model(inputs={{"x": "FP32[]"}}, sample=SOUND, rows=1)
def huge(x):
    return np.zeros((1, {MAX_BYTES} + 1 if x.any() else 1), np.uint8)

@model(inputs={{"x": "FP32[]"}}, sample=SOUND, rows=1)
def long_text(x):
    return ["a" * ({MAX_BYTES} if x.any() else 1)]

class Scalar(Model):
    name = "scalar"
    inputs = {{"x": "FP32[]"}}
    sample = SOUND

    def preprocess(self, request):
        return {{"x": 7 if request.inputs["x"].any() else request.inputs["x"]}}

    def infer(self, batch):
        return batch["x"]

class Drops(Model):
    name = "drops"
    inputs = {{"x": "FP32[]"}}
    sample = SOUND

    def infer(self, batch):
        return batch["x"]

    def postprocess(self, outputs, request):
        return {{"output": outputs["output"][: 0 if request.inputs["x"].any() else None]}}

@model(inputs={{"text": "BYTES[]"}}, outputs={{"same": "BYTES[]", "size": "INT32[]"}})
def mirror(text):
    return {{"same": list(text), "size": [len(one) for one in text]}}
"""

REFUSED = {
    "wide": "declares the output y: FP32[2], with the rows first, and gave FP32[1, 3]",
    "floats": "declares the output y: INT64[] and gave FP32[1], which does not become that",
    "names": "gave an output under the name 'no name at all', which cannot be sent",
    "surrogates": "surrogates not allowed",
    "huge": f"gave outputs of {MAX_BYTES + 1} bytes for one request, which can be answered with at most {MAX_BYTES}",
    "long_text": f"a reply must have at most {MAX_BYTES} bytes; got ",
    "scalar": "must return arrays with rows first, or lists of rows; got 7 for 'x'",
    "drops": "gave 0 rows of its output 'output' for a request of 1",
}

texts = st.one_of(st.text(max_size=20), st.binary(max_size=20))


def outcome(client: Client, name: str) -> InferenceError | None:
    try:
        client.infer(name, 1.0, timeout=30)
    except InferenceError as error:
        return error
    return None


def test_what_a_model_gives_is_sent_as_declared_or_refused_in_its_name(
    redis_url: str, pool: str, tmp_path: Path
) -> None:
    # Given models that keep to their declarations only while they warm up
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    with workers(redis_url, pool, path), Client(redis_url, pool=pool) as client:
        # When each is asked
        errors = {name: outcome(client, name) for name in REFUSED}
        # Then it is the model's error, with what is wrong, and the worker goes on
        assert {name: type(error) for name, error in errors.items()} == dict.fromkeys(REFUSED, ModelError)
        for name, told in REFUSED.items():
            assert told in str(errors[name])
            assert f"model '{name}:1'" in str(errors[name])
        # And what can be converted is, while what is not declared is not sent
        answer = client.infer("halves", [1.5, 2.5])
        assert {name: array.dtype for name, array in answer.outputs.items()} == {"y": np.float16, "z": np.float32}

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @example(["a\0", "\0", "😀", "", "\u202e\u0300"])
        @example([b"\xff\0", b"", b"\xc3"])
        @given(st.lists(texts, min_size=1, max_size=6))
        def strings_come_back(values: list[str | bytes]) -> None:
            answer = client.infer("mirror", values)
            assert answer["same"].tolist() == values
            assert answer["size"].tolist() == [len(one) for one in values]

        strings_come_back()
