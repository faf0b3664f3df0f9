"""A small repository of models to fetch, and a cache to fetch it into."""

from __future__ import annotations

from pathlib import Path

from inference_worker.models.weights import INDEX_FILE
from inference_worker.remote.cache import Cache
from inference_worker.remote.index import index_folder, print_index
from inference_worker.remote.snapshot import Snapshot, open_snapshot

MANIFEST = 'backend = "onnx"\n[onnx]\nfile = "w.bin"\n'
WEIGHTS = "m/1/w.bin"
LARGE = 20 * 10**9


def write_repository(folder: Path, weights: bytes = b"weights" * 1000, name: str = "m") -> Path:
    """`folder`/<name>/1 with a manifest and weights, and the index of all that is there."""
    model = folder / name / "1"
    model.mkdir(parents=True, exist_ok=True)
    (model / "model.toml").write_text(MANIFEST)
    (model / "w.bin").write_bytes(weights)
    return write_index(folder)


def write_index(folder: Path) -> Path:
    (folder / INDEX_FILE).write_text(print_index(index_folder(folder)))
    return folder


def fetched(url: str, cache: Cache) -> Snapshot:
    """All of a repository."""
    snapshot = open_snapshot(url, cache)
    snapshot.fetch()
    return snapshot
