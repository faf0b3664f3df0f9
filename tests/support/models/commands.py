"""Small models that tests/cli calls."""

import os
import time
from pathlib import Path

from inference_worker import Model, model


@model(inputs={"text": "BYTES[]"})
def shout(text):
    return [one.upper() for one in text]


@model(inputs={"x": "FP32[-1]"}, outputs={"least": "FP32[]", "most": "FP32[]"}, cache_ttl=60)
def span(x):
    return x.min(axis=1), x.max(axis=1)


@model(name="greet", version="1", inputs={"name": "BYTES[]"}, aliases=["prod"])
def greet_politely(name):
    return [f"Good day, {one}" for one in name]


@model(name="greet", version="2", inputs={"name": "BYTES[]"}, aliases=["canary"])
def greet(name):
    return [f"Hi {one}" for one in name]


@model(inputs={"x": "FP32[]"})
def root(x):
    if (x < 0).any():
        raise ValueError("a negative number has no real root")
    return x**0.5


@model(inputs={"gate": "BYTES[]"}, sample={"gate": os.devnull}, rows=1)
def waits(gate):
    """Makes the file `<gate>.entered`, then waits until the file `gate` is there."""
    if gate[0] != os.devnull:
        Path(f"{gate[0]}.entered").touch()
    while not Path(gate[0]).exists():
        time.sleep(0.01)
    return ["passed"]


class Scaled(Model):
    """A vector times the request's parameter `by`."""

    name = "scaled"
    inputs = {"x": "FP32[-1]"}  # noqa: RUF012

    def preprocess(self, request):
        return {"x": request.inputs["x"] * float(request.parameters.get("by", 1))}

    def infer(self, batch):
        return batch["x"]
