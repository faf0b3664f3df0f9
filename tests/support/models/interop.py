"""Small models that producers in other languages call in tests/interop."""

from inference_worker import model


@model(inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[-1]"})
def double(x):
    return {"y": 2 * x}


@model(inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[-1]"}, cache_ttl=300)
def remembered(x):
    return {"y": 2 * x}


@model(inputs={"text": "BYTES[]"}, outputs={"loud": "BYTES[]"})
def shout(text):
    return {"loud": [one.upper() for one in text]}


@model(inputs={"x": "FP32[-1]"}, outputs={"root": "FP32[-1]"})
def root(x):
    if (x < 0).any():
        raise ValueError("a negative number has no real root")
    return {"root": x**0.5}
