"""python -m tests.fuzz [--seconds S] [--keep] [TARGET...]: fuzz decoders by coverage (atheris), starting at the corpus.

Each target runs in a process of its own, since a finding ends it; the input that made it is printed and kept in
tests/fuzz/findings. With --keep what reaches new code is added to the corpus.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
FINDINGS = FOLDER / "findings"
MOST_BYTES = 4096
#: One input must not take longer, nor a target more memory.
SLOW_S = 5
MOST_MB = 2048


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true", help="add what reaches new code to the corpus")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _fuzz(options.inside, options.targets)
    names = options.targets or sorted(path.name for path in CORPUS.iterdir())
    return max(fuzz(name, options.seconds, options.keep) for name in names)


def fuzz(target: str, seconds: int, keep: bool = False) -> int:
    """0, or the exit code of the process that found something."""
    FINDINGS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as fresh:
        folders = [CORPUS / target] if keep else [Path(fresh), CORPUS / target]
        limits = [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", f"-timeout={SLOW_S}"]
        limits += [f"-rss_limit_mb={MOST_MB}", f"-artifact_prefix={FINDINGS}/{target}-", "-print_final_stats=1"]
        command = [sys.executable, "-m", "tests.fuzz", "--inside", target, "--", *limits, *map(str, folders)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = done.stderr.splitlines()
    runs = next((line.rpartition(" ")[2] for line in told if "number_of_executed_units" in line), "?")
    print(f"{target}: {'sound' if done.returncode == 0 else 'FOUND SOMETHING'} after {runs} inputs")
    if done.returncode:
        print(done.stdout, *told[-60:], sep="\n")
    return done.returncode


def _fuzz(target: str, arguments: list[str]) -> None:
    import atheris

    # The library's own code is what is to be covered: numpy and msgpack are not.
    with atheris.instrument_imports(include=["common", "gateway", "inference_worker"]):
        from tests.fuzz.targets import TARGETS
    # What is passed over is logged, thousands of times a second.
    logging.disable(logging.CRITICAL)
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
