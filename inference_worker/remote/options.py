"""What an operator says of fetched repositories: where they are kept, how much of them, and whether their code runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError
from common.names import shorten
from inference_worker.host_cache import cache_folder
from inference_worker.models.manifest import parse_size

SIZE_VARIABLE = "INFERENCE_WORKER_CACHE_SIZE"
TRUST_VARIABLE = "INFERENCE_WORKER_TRUST_CODE"
DEFAULT_SIZE = "20GB"
_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """`most_bytes` bounds the cache on disk. `trust_code`: whoever may write to the repositories may run code here."""

    cache: Path
    most_bytes: int
    trust_code: bool = False


def remote_options() -> RemoteOptions:
    """From the environment, where the command's flags go too: its workers inherit them. Raises ConfigError."""
    trust = os.environ.get(TRUST_VARIABLE, "").lower()
    if trust not in _YES + _NO:
        raise ConfigError(f"{TRUST_VARIABLE} must be 1 or 0; got {shorten(trust)}")
    try:
        most_bytes = parse_size(os.environ.get(SIZE_VARIABLE) or DEFAULT_SIZE)
    except ConfigError as error:
        raise ConfigError(f"{SIZE_VARIABLE}: {error}") from None
    return RemoteOptions(cache_folder() / "repositories", most_bytes, trust in _YES)
