"""(c) MiniLM over the whole path, 64 in flight, against a direct loop in one process on the same cores.

python -m benchmarks.minilm [--sentences N] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.corpus import sentences
from benchmarks.harness import ROOT, table, workers
from common.embedded import EmbeddedRedis
from common.keys import DEFAULT_POOL
from common.tensor import Array
from gateway import Client
from inference_worker.backends import open_model
from inference_worker.backends.base import ModelRequest
from inference_worker.batching.collate import pad_rows
from inference_worker.models.registry import Loaded
from inference_worker.models.repository import discover

MINILM = ROOT / "examples" / "models" / "minilm"
IN_FLIGHT = 64
BATCHES = (1, 8, 16, 32, 64)


class Direct:
    """The model in this process: tokenize, pad, run, in batches cut by hand. No queue, no request."""

    def __init__(self, threads: int) -> None:
        spec = discover(MINILM)[0]
        self._loaded = Loaded(spec, open_model(spec, "cpu", threads))

    def embed(self, texts: Sequence[str]) -> Array:
        request = ModelRequest({"text": np.array(texts, dtype=object)}, len(texts), {})
        features = self._loaded.backend.preprocess(request)
        pad = self._loaded.spec.batch.pad
        batch = {name: pad_rows([row[None] for row in rows], pad[name]) for name, rows in features.items()}
        return self._loaded.backend.infer(batch)["embedding"]

    def run(self, texts: Sequence[str], size: int, by_length: bool) -> tuple[float, Array]:
        """(sentences per second, embeddings in the order of `texts`)"""
        order = sorted(range(len(texts)), key=lambda one: len(texts[one])) if by_length else list(range(len(texts)))
        found: list[Array | None] = [None] * len(texts)
        started = time.perf_counter()
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            for index, row in zip(chosen, self.embed([texts[one] for one in chosen]), strict=True):
                found[index] = row
        return len(texts) / (time.perf_counter() - started), np.array(found)


def over_redis(url: str, pool: str, texts: Sequence[str], expected: Array) -> float:
    """Sentences per second through client, Redis and worker; each result is compared with the direct one."""
    with workers(url, pool, str(MINILM)), Client(url, pool=pool) as client:
        started = time.perf_counter()
        results = list(client.map("minilm", texts, window=IN_FLIGHT, cache=False))
        elapsed = time.perf_counter() - started
    embeddings = np.stack([result["embedding"] for result in results])
    if not np.allclose(embeddings, expected, atol=1e-4):
        raise RuntimeError("the worker's embeddings differ from the direct ones")
    return len(texts) / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    texts = sentences(options.sentences)
    threads = len(os.sched_getaffinity(0))
    direct = Direct(threads)
    direct.run(texts[:64], 8, True)
    rates: dict[str, list[float]] = {}
    with EmbeddedRedis() as server:
        for _ in range(options.rounds):
            expected = direct.run(texts, 8, True)[1]
            for size in BATCHES:
                for by_length in (False, True):
                    name = f"direct, {'sorted by length' if by_length else 'arrival order'}, batches of {size}"
                    rates.setdefault(name, []).append(direct.run(texts, size, by_length)[0])
            rates.setdefault("over Redis, 64 in flight", []).append(
                over_redis(server.url, DEFAULT_POOL, texts, expected)
            )
    _print(rates, len(texts))


def _print(rates: dict[str, list[float]], count: int) -> None:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ours = medians["over Redis, 64 in flight"]
    best_sorted = max(value for name, value in medians.items() if "sorted" in name)
    best_arrival = max(value for name, value in medians.items() if "arrival" in name)
    table(
        f"(c) MiniLM, {count} sentences, medians; {ours / best_sorted:.2f} of the best sorted, "
        f"{ours / best_arrival:.2f} of the best in arrival order",
        ["MiniLM, sentences of mixed length", "sentences/s"],
        [[name, f"{value:.0f}"] for name, value in medians.items()],
    )


if __name__ == "__main__":
    main()
