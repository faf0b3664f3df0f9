"""(e) From `inference-worker up` to the first answer, and how much of that is imports and weights.

python -m benchmarks.startup [--rounds N]
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import subprocess
import sys
import time

from benchmarks.harness import ROOT, table
from gateway import Client

MODELS = {"echo": "examples/echo.py", "minilm": "examples/models/minilm"}
INPUTS = {"echo": [1.0, 2.0], "minilm": "How far is the moon?"}
#: What the model's libraries take by themselves, in a process that does nothing else.
LIBRARIES = {"echo": "import numpy", "minilm": "import numpy, torch, tokenizers, safetensors.torch"}


def first_answer(model: str) -> tuple[float, float]:
    """(seconds to the first answer, seconds of those for code and weights, as the worker tells)"""
    started = time.perf_counter()
    command = [sys.executable, "-m", "inference_worker.cli", "up", "--device", "cpu", MODELS[model]]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        broker, loading = "", 0.0
        for line in process.stderr:
            if found := re.match(r"broker (\S+);", line):
                broker = found[1]
            if found := re.search(r"imports ([\d.]+) s, weights ([\d.]+) s", line):
                loading = float(found[1]) + float(found[2])
                break
        with Client(broker) as client:
            client.infer(model, INPUTS[model])
        elapsed = time.perf_counter() - started
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    return elapsed, loading


def import_seconds(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for model in MODELS:
        answers = [first_answer(model) for _ in range(options.rounds)]
        imports = [import_seconds(LIBRARIES[model]) for _ in range(options.rounds)]
        medians = [statistics.median(values) for values in (*zip(*answers, strict=True), imports)]
        rows.append([model, *(f"{value:.2f}" for value in medians)])
    heads = ["model", "first answer after s", "of that code and weights s", "its libraries' bare import s"]
    table(f"(e) medians of {options.rounds} cold starts, files in the page cache", heads, rows)


if __name__ == "__main__":
    main()
