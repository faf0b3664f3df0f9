"""A model in two versions that tell which of them answered, and one whose results are kept."""

from inference_worker import model


@model(name="which", version="1", inputs={"x": "FP32[]"}, aliases=["stable"])
def first(x):
    return ["1"] * len(x)


@model(name="which", version="2", inputs={"x": "FP32[]"})
def second(x):
    return ["2"] * len(x)


@model(name="kept", version="1", inputs={"x": "FP32[]"}, cache_ttl=60)
def kept_first(x):
    return ["1"] * len(x)


@model(name="kept", version="2", inputs={"x": "FP32[]"}, cache_ttl=60)
def kept_second(x):
    return ["2"] * len(x)
