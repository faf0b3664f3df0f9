"""Runs decoders of one file's bytes within bounds of memory and processor time: python -m tests.support.bounded.

    python -m tests.support.bounded FILE MEGABYTES SECONDS DECODER

Prints what became of the bytes and by how many megabytes the process grew. Over a bound it ends as the system ends it.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

from common.errors import InferenceError
from common.protocol import decode_request, sender_of
from common.traffic import read_plan
from gateway.result import Result, read_reply

#: One element of a page count in /proc/self/statm.
_PAGE = resource.getpagesize()


def request(data: bytes) -> str:
    sender_of(data)
    return f"decoded {len(decode_request(data).inputs)}"


def reply(data: bytes) -> str:
    _, answer = read_reply(data)
    return f"decoded {len(answer.outputs)}" if isinstance(answer, Result) else f"refused: {answer}"


def plan(data: bytes) -> str:
    return f"decoded {read_plan(data)}"


def grpc(data: bytes) -> str:
    from gateway.grpc.pb import inference_pb2 as pb
    from gateway.grpc.reading import reader_of

    return f"read {len(reader_of(pb.ModelInferRequest)(data).message().inputs)}"


DECODERS: dict[str, Callable[[bytes], str]] = {"request": request, "reply": reply, "plan": plan, "grpc": grpc}


def main(path: str, megabytes: str, seconds: str, decoder: str) -> None:
    data = Path(path).read_bytes()
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    bound = taken + (int(megabytes) << 20)
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    before = _peak_mb()
    try:
        outcome = DECODERS[decoder](data)
    except InferenceError as error:
        outcome = f"refused: {error}"
    print(f"{_peak_mb() - before:.0f} {outcome[:500]}")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
