"""The smallest models over numbers: two functions, each of them one model."""

import numpy as np

from inference_worker import model

DIM = 8


@model(
    name="sentiment-v1", inputs={"vector": "FP32[-1]"}, outputs={"scores": "FP32[2]"}, sample={"vector": [0.25, 0.5]}
)
def score(vector):
    """[|mean|, 1 - |mean|] of each vector; an empty one counts as zeros."""
    strength = np.abs(vector.sum(axis=1) / max(1, vector.shape[1]))
    return np.stack([strength, 1 - strength], axis=1)


@model(
    name="embed-v2", inputs={"vector": "FP32[-1]"}, outputs={"embedding": f"FP32[{DIM}]"}, sample={"vector": [1, 2, 3]}
)
def embed(vector):
    """Each vector cut to DIM numbers, or filled up to them with zeros."""
    embedding = np.zeros((len(vector), DIM), dtype=np.float32)
    embedding[:, : vector.shape[1]] = vector[:, :DIM]
    return embedding
