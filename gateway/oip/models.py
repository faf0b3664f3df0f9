"""What the Open Inference Protocol and Triton's extensions tell of models: metadata, configuration, counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gateway.catalog import Declared
from gateway.door.directory import Served
from gateway.door.statistics import ModelStatistics

PLATFORM = "inference-worker"
EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
_DATA_TYPES = {"BYTES": "TYPE_STRING"}


@cache
def release() -> str:
    """This project's version; of a checkout that is not installed "0"."""
    try:
        return version("inference-worker")
    except PackageNotFoundError:
        return "0"


def server() -> dict[str, Any]:
    return {"name": PLATFORM, "version": release(), "extensions": EXTENSIONS}


def metadata(served: Served) -> dict[str, Any]:
    info = served.info
    return {
        "name": info.name,
        "versions": served.versions,
        "platform": PLATFORM,
        "inputs": [_tensor(one) for one in info.inputs],
        "outputs": [_tensor(one) for one in info.outputs],
    }


def config(served: Served) -> dict[str, Any]:
    """As Triton shows it: shapes are one row's, and max_batch_size says that rows come first."""
    info = served.info
    return {
        "name": info.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": {"specific": {"versions": served.versions}},
        "max_batch_size": info.rows,
        "input": [_configured(one) for one in info.inputs],
        "output": [_configured(one) for one in info.outputs],
        "dynamic_batching": {},
        "response_cache": {"enable": info.cache_ttl_s > 0},
    }


def statistics(counted: Iterable[tuple[str, str, ModelStatistics]]) -> dict[str, Any]:
    """(model, version, counts) of each."""
    return {"model_stats": [_counts(name, version, one) for name, version, one in counted]}


def index(models: Iterable[Served], ready_only: bool) -> list[dict[str, str]]:
    return [
        {
            "name": one.info.name,
            "version": one.info.version,
            "state": "READY" if one.live else "UNAVAILABLE",
            "reason": "" if one.live else f"pool '{one.pool}' has no live worker",
        }
        for one in models
        if one.live or not ready_only
    ]


def _tensor(one: Declared) -> dict[str, Any]:
    return {"name": one.name, "datatype": one.dtype, "shape": (-1, *one.shape)}


def _configured(one: Declared) -> dict[str, Any]:
    data_type = _DATA_TYPES.get(one.dtype, f"TYPE_{one.dtype}")
    return {"name": one.name, "data_type": data_type, "dims": one.shape or (1,)}


def _counts(name: str, version: str, counts: ModelStatistics) -> dict[str, Any]:
    computed = counts.answered - counts.cached
    return {
        "name": name,
        "version": version,
        "last_inference": counts.last_ms,
        "inference_count": computed,
        "execution_count": computed,
        "inference_stats": {
            "success": _duration(counts.answered, counts.answered_s),
            "fail": _duration(counts.failed, counts.failed_s),
            "queue": _duration(computed, counts.queue_s),
            "compute_input": _duration(0, 0.0),
            "compute_infer": _duration(computed, counts.compute_s),
            "compute_output": _duration(0, 0.0),
            "cache_hit": _duration(counts.cached, counts.cached_s),
            "cache_miss": _duration(0, 0.0),
        },
        "batch_stats": [],
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": int(seconds * 1e9)}
