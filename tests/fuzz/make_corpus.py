"""Writes the seeds of the corpus: one sound message of each kind. python -m tests.fuzz.make_corpus

What a fuzzer has added since stays: these are a few files with names of their own.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgpack
import numpy as np

from common.errors import Overloaded
from common.orders import Order, Report, encode
from common.protocol import Reply, Request, Timings, encode_reply, encode_request
from common.tensor import Tensor, from_numpy
from common.traffic import Plan
from inference_worker.remote.index import Entry, print_index

CORPUS = Path(__file__).with_name("corpus")

_X = from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3))
_TEXT = Tensor("BYTES", (2,), ["grüße", b"\xff"])
_REQUEST = encode_request(
    Request(
        "6f1c", "minilm", {"x": _X, "text": _TEXT}, "2", "acme", {"top_k": 5, "stop": ["a", None], "mix": {"b": 0.5}},
        ("vector",), 1500, "iw:{p}:inbox:me", {"traceparent": "00-4bf92f3577b34da6-00f067aa0ba902b7-01"}, "user-7",
    )
)  # fmt: skip
_ABOUT = {
    "name": "minilm", "version": "2", "default": True, "aliases": ["prod"], "pool": "p", "backend": "torch",
    "inputs": [{"name": "text", "dtype": "BYTES", "shape": []}], 
    "outputs": [{"name": "v", "dtype": "FP32", "shape": [384]}],
    "rows": 64, "cache_ttl_s": 60.0, "weights": "5f3c",
}  # fmt: skip
_MANIFEST = """
backend = "torch"
pool = "gpu-pool-a"
aliases = ["prod"]
cache_ttl = 60
inputs = [{ name = "x", dtype = "FP32", shape = [-1, 3] }]
outputs = [{ name = "y", dtype = "FP32", shape = [3] }]
[batch]
rows = 32
pad = { x = 0.0 }
padded = 4096
bytes = "2MiB"
[placement]
device = "cuda:0"
memory = "500MB"
[torch]
code = "m.py:Net"
arguments = { width = 3 }
[sample]
x = [[1.0, 2.0, 3.0]]
"""
_ROUTES = 'default = "p"\n[[route]]\nmodel = "gpt*"\nversion = ">= 4, < 5"\ntenant = "acme*"\npool = "gpu/0"\n'
_ENSEMBLES = """
[ensemble.search]
inputs = ["text"]
outputs = { score = "rank.score" }
[[ensemble.search.step]]
name = "embed"
model = "minilm"
version = "2"
inputs = { text = "text" }
[[ensemble.search.step]]
name = "rank"
model = "ranker"
inputs = { vector = "embed.v" }
"""

SEEDS: dict[str, list[bytes]] = {
    "wire": [_REQUEST, msgpack.packb({"a": [1, -1, 2**40, 0.5, None, True, "ä", b"x", {"b": []}]})],
    "request": [_REQUEST],
    "request_map": [msgpack.packb({"a": {"x": _X.to_wire()}, "b": {"k": 1}, "c": ["y"], "d": 5, "e": "r"})],
    "tensor": [msgpack.packb(_X.to_wire()), msgpack.packb(_TEXT.to_wire())],
    "reply": [
        encode_reply(Reply("6f1c", "minilm", "2", {"v": _X, "t": _TEXT}, None, Timings(1, 2, 3, 4))),
        encode_reply(Reply("6f1c", "minilm", None, {}, Overloaded("full", 250), Timings())),
    ],
    "published": [msgpack.packb(_ABOUT)],
    "traffic": [Plan({"prod": "1"}, {"1": 95.0, "prod": 5.0}, "key").encode()],
    "order": [encode(Order("operator-1", "load", "minilm", "2", True, 5000, "iw:{p}:inbox:operator-1"))],
    "report": [encode(Report("operator-1", "host-1-0-0", "host", 0, True, "", ("minilm:2",), 0.5, 1 << 20))],
    "status": [msgpack.packb({"host": "h", "index": 0, "state": "ready", "rows": 5, "models": ["minilm:2"]})],
    "manifest": [_MANIFEST.encode()],
    "toml": [_MANIFEST.encode(), _ROUTES.encode()],
    "routes": [_ROUTES.encode()],
    "ensembles": [_ENSEMBLES.encode()],
    "index": [print_index([Entry("m/1/model.toml", 5, "0" * 64), Entry("m/1/w.bin", 7, "f" * 64)]).encode()],
    "child_lines": [json.dumps({"is": "ready", "models": {"m:1": "gA=="}}).encode() + b"\n" + b'{"is": "busy"'],
}


def main() -> None:
    for target, seeds in SEEDS.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds, 1):
            (folder / f"seed-{number}").write_bytes(seed)


if __name__ == "__main__":
    main()
