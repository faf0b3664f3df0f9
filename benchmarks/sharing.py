"""How much memory MiniLM's weights take in 1, 2, 4, 8 and 10 processes of a host, in proportional set size (PSS).

python -m benchmarks.sharing [--counts N ...]

A page that n processes map counts a n-th in the PSS of each. `weights` is the sum over all processes of the PSS of
what they map of the model's files; `private` what each process has beside since before it loaded: code, graph and
scratch memory, and with `copied` the weights, which are then nobody else's.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.exported import FORMS, eager
from benchmarks.harness import ROOT, table
from inference_worker.backends import BACKENDS, backend_class, open_model
from inference_worker.host_cache import CACHE_VARIABLE, cache_folder
from inference_worker.models.repository import discover
from inference_worker.models.spec import ModelSpec

COUNTS = (1, 2, 4, 8, 10)
MIB = 1 << 20
VOCABULARY = 30_522
_FILES = (".safetensors", ".pt2", ".onnx", ".weights")


def mapped_bytes() -> int:
    """This process's share of the pages of weights' files that it maps."""
    found, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if "-" in name and not name.endswith(":"):
            counts = rest.endswith(_FILES)
        elif counts and name == "Pss:":
            found += int(rest.split()[0]) * 1024
    return found


def touch_weights() -> None:
    """Read each page that is mapped of weights' files: a page that nobody has read yet counts nowhere."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(_FILES):
            start, _, end = line.partition(" ")[0].partition("-")
            for address in range(int(start, 16), int(end, 16), mmap.PAGESIZE):
                ctypes.string_at(address, 1)


def private_bytes() -> int:
    """The anonymous memory of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/smaps_rollup tells no Pss_Anon; this needs Linux 5.4 or later")


def child(folders: Sequence[str], copied: bool) -> None:
    """Load, run once, say so; when told that all have, say how much memory that is."""
    specs = [spec for folder in folders for spec in discover(Path(folder))]
    _import(specs)
    before = private_bytes()
    kept = [_loaded(spec, copied) for spec in specs]
    for run in kept:
        run()
    touch_weights()
    print("loaded", flush=True)
    sys.stdin.readline()
    print(json.dumps({"weights": mapped_bytes(), "private": private_bytes() - before}), flush=True)
    sys.stdin.readline()


def _import(specs: Sequence[ModelSpec]) -> None:
    """What is imported for a model, so that it counts as none of its memory."""
    for spec in specs:
        backend_class(BACKENDS[spec.backend])
        if spec.options.get("file", "").endswith(".pt2"):
            import torch

            # Some of what it imports only the first program needs.
            with tempfile.NamedTemporaryFile(suffix=".pt2") as file:
                torch.export.save(torch.export.export(torch.nn.Identity(), (torch.zeros(1),)), file.name)
                torch.export.load(file.name)


def _loaded(spec: ModelSpec, copied: bool) -> Callable[[], object]:
    backend = open_model(spec, "cpu", 1)
    if copied:
        module = backend._backend._module  # type: ignore[attr-defined]
        module.load_state_dict({name: one.clone() for name, one in module.state_dict().items()}, assign=True)
    # From all over the vocabulary: its table is half of the weights.
    ids = np.linspace(0, VOCABULARY - 1, 512, dtype=np.int64).reshape(8, 64)
    return lambda: backend.infer({"input_ids": ids, "attention_mask": np.ones_like(ids)})


def processes(folders: Sequence[str], count: int, copied: bool = False) -> tuple[int, int]:
    """(bytes of the weights in all processes together, bytes of one process beside)"""
    command = [sys.executable, "-m", "benchmarks.sharing", "--child", *folders, *(["--copied"] if copied else [])]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        for one in started:
            assert one.stdout is not None
            if one.stdout.readline() != "loaded\n":
                raise RuntimeError("a process ended before its model was loaded")
        told = [_ask(one) for one in started]
    finally:
        for one in started:
            one.communicate()
    return sum(one["weights"] for one in told), sum(one["private"] for one in told) // count


def _ask(process: subprocess.Popen[str]) -> dict[str, int]:
    # The others wait meanwhile: nobody goes before all have told.
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    told: dict[str, int] = json.loads(process.stdout.readline())
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--copied", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.copied)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = f"{folder}/cache"
        twins = [str(eager(Path(folder), name).folder) for name in ("one", "other")]
        measured = [
            [_row("two models, one file", twins, count) for count in options.counts],
            [_row("copied", twins[:1], count, copied=True) for count in options.counts],
        ]
        # Last: exporting may leave the file mapped in this process, which then has a share of its pages.
        measured += [_series(form, make(Path(folder)), options.counts) for form, make in FORMS.items()]
        assert cache_folder().is_dir()
    _print(measured, options.counts)


def _series(form: str, spec: ModelSpec, counts: Sequence[int]) -> list[tuple[str, int, int, int]]:
    return [_row(form, [str(spec.folder)], count) for count in counts]


def _row(name: str, folders: Sequence[str], count: int, copied: bool = False) -> tuple[str, int, int, int]:
    return name, count, *processes(folders, count, copied)


def _print(measured: Sequence[Sequence[tuple[str, int, int, int]]], counts: Sequence[int]) -> None:
    rows = []
    for series in measured:
        first = series[0][2] or 1
        for name, count, weights, private in series:
            ratio = f"{weights / first:.2f}" if weights else "-"
            rows.append([name, str(count), f"{weights / MIB:.1f}", ratio, f"{private / MIB:.1f}"])
    heads = ["MiniLM", "processes", "weights, PSS of all MiB", f"of {counts[0]} process", "private of each MiB"]
    table("Weights' memory; more processes than one share what one has", heads, rows)


if __name__ == "__main__":
    main()
