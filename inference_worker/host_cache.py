"""Where this host keeps what it made or fetched once for all of its processes."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "INFERENCE_WORKER_CACHE"


def cache_folder() -> Path:
    """The folder in INFERENCE_WORKER_CACHE, else `inference-worker` in the user's cache. It need not exist yet."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inference-worker"
