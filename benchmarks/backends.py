"""MiniLM by torch eager, torch.export and ONNX Runtime: each through the project's backend, and by the bare library.

python -m benchmarks.backends [--sentences N] [--rounds N] [--rows N] [--threads N]

All run the same collated batches of sentences sorted by length, in this process, turn by turn: one batch through each,
then the next. Of several rounds each batch counts with its quickest run, which nothing else on the machine held up.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus import sentences
from benchmarks.exported import FORMS, MINILM, OUTPUT, WEIGHTS
from benchmarks.harness import table
from common.tensor import Array
from inference_worker.backends import open_model
from inference_worker.backends.base import ModelRequest
from inference_worker.batching.collate import pad_rows
from inference_worker.models.repository import discover
from inference_worker.models.spec import ModelSpec

Batch = Mapping[str, Array]
Run = Callable[[Batch], Array]


def batches(texts: Sequence[str], rows: int) -> list[Batch]:
    """Tokenized, sorted by length, filled up."""
    (spec,) = discover(MINILM)
    request = ModelRequest({"text": np.array(sorted(texts, key=len), dtype=object)}, len(texts), {})
    tokenized = open_model(spec, "cpu", 1).preprocess(request)
    return [
        {name: pad_rows([row[None] for row in found[start : start + rows]], 0) for name, found in tokenized.items()}
        for start in range(0, len(texts), rows)
    ]


def through_backend(spec: ModelSpec, threads: int) -> Run:
    backend = open_model(spec, "cpu", threads)
    return lambda batch: backend.infer(batch)[OUTPUT]


def bare(form: str, spec: ModelSpec, threads: int) -> Run:
    """The library's own few lines, as its documentation has them."""
    assert spec.folder is not None
    return (
        bare_onnx(spec.folder / "minilm.onnx", threads) if spec.backend == "onnx" else bare_torch(form, spec, threads)
    )


def bare_onnx(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def run(batch: Batch) -> Array:
        found: Array = session.run(None, dict(batch))[0]
        return found

    return run


def bare_torch(form: str, spec: ModelSpec, threads: int) -> Run:
    import torch

    torch.set_num_threads(threads)
    module = _module(form, spec)

    def run(batch: Batch) -> Array:
        with torch.inference_mode():
            found: Array = module(*(torch.from_numpy(array) for array in batch.values())).numpy()
            return found

    return run


def _module(form: str, spec: ModelSpec) -> Any:
    import torch
    from safetensors.torch import load_file

    from inference_worker.models.code import load_object

    assert spec.folder is not None
    if form == "torch.export":
        return torch.export.load(spec.folder / "minilm.pt2").module()
    module = load_object("model.py:MiniLM", spec.folder)()
    module.load_state_dict(load_file(spec.folder / WEIGHTS), strict=False)
    return module.eval()


def measure(runs: Mapping[str, Run], work: Sequence[Batch], rounds: int) -> dict[str, float]:
    """Sentences per second of each; raises RuntimeError where results differ."""
    quickest = {name: [inf] * len(work) for name in runs}
    count = 0
    for number, batch in enumerate(work):
        expected = next(iter(runs.values()))(batch)
        count += len(expected)
        for _ in range(rounds):
            for name, run in runs.items():
                started = time.perf_counter()
                found = run(batch)
                quickest[name][number] = min(quickest[name][number], time.perf_counter() - started)
                if not np.allclose(found, expected, atol=1e-4):
                    raise RuntimeError(f"the embeddings of {name} differ")
    return {name: count / sum(seconds) for name, seconds in quickest.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    work = batches(sentences(options.sentences), options.rows)
    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        for form, make in FORMS.items():
            spec = make(Path(folder))
            runs[f"{form}, backend"] = through_backend(spec, options.threads)
            runs[f"{form}, bare"] = bare(form, spec, options.threads)
        rates = measure(runs, work, options.rounds)
    rows = [
        [form, f"{rates[f'{form}, backend']:.0f}", f"{rates[f'{form}, bare']:.0f}",
         f"{rates[f'{form}, backend'] / rates[f'{form}, bare']:.2f}"]
        for form in FORMS
    ]  # fmt: skip
    title = f"MiniLM, {options.sentences} sentences sorted, batches of {options.rows}, {options.threads} threads"
    table(title, ["library", "backend, sentences/s", "bare loop, sentences/s", "ratio"], rows)


if __name__ == "__main__":
    main()
