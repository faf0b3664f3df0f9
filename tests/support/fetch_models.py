"""Fetch a repository in a process of its own, print its folder, and hold it until standard input ends.

python -m tests.support.fetch_models URL CACHE [BYTES OF A FILE AT MOST]
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from common.errors import InferenceError
from inference_worker.remote.cache import Cache
from tests.support.repositories import LARGE, fetched


def main(url: str, folder: str, most_bytes: str = "") -> int:
    if most_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes), int(most_bytes)))
    try:
        snapshot = fetched(url, Cache(Path(folder), LARGE))
    except InferenceError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 1
    print(snapshot.folder, flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
