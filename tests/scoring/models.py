"""Small models to score by. Their results tell with whom a row ran, so that another composition shows."""

import os
import time
from pathlib import Path

import numpy as np

from inference_worker import Model, model


@model(inputs={"x": "FP32[3]"}, outputs={"y": "FP32[3]", "total": "FP32[]"}, rows=16)
def double(x):
    return {"y": 2 * x, "total": x.sum(axis=1)}


@model(inputs={"number": "INT64[]"}, outputs={"square": "INT64[]"}, rows=16)
def square(number):
    if (number < 0).any():
        raise ValueError("a negative number is refused")
    return {"square": number * number}


@model(inputs={"text": "BYTES[]"}, outputs={"loud": "BYTES[]", "letters": "INT64[]"}, rows=8)
def shout(text):
    return {"loud": [one.upper() for one in text], "letters": [len(one) for one in text]}


@model(inputs={"picture": "FP32[4, 4, 3]"}, outputs={"light": "FP32[]"}, rows=8)
def light(picture):
    return {"light": picture.mean(axis=(1, 2, 3))}


@model(inputs={"x": "FP32[-1]"}, outputs={"most": "FP32[]", "doubled": "FP32[-1]"}, rows=8)
def most(x):
    return {"most": x.max(axis=1), "doubled": 2 * x}


class Mates(Model):
    """Of each text: in how large a batch it ran, how far that was filled up, and the file's own pace."""

    name = "mates"
    inputs = {"text": "BYTES[]"}  # noqa: RUF012
    outputs = {"rows": "INT64[]", "width": "INT64[]", "first": "INT64[]"}  # noqa: RUF012
    rows = 8
    pad = {"ids": 0}  # noqa: RUF012

    def preprocess(self, request):
        return {"ids": [np.frombuffer(_bytes(one), np.uint8) for one in request.inputs["text"]]}

    def infer(self, batch):
        ids = batch["ids"]
        pace = Path(os.environ.get("SCORING_PACE", os.devnull))
        if pace.is_file():
            time.sleep(float(pace.read_text()))
        shape = np.ones(len(ids), np.int64)
        first = ids[:, :1].sum(axis=1) if ids.shape[1] else np.zeros(len(ids))
        return {"rows": shape * len(ids), "width": shape * ids.shape[1], "first": first}


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode()
