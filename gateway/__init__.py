"""The clients: ask models through Redis. Imports no torch, and nothing of the workers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from common.errors import (
    BrokerUnavailable,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    InferenceError,
    InternalError,
    InvalidRequest,
    ModelError,
    ModelNotFound,
    ModelUnavailable,
    Overloaded,
    PayloadTooLarge,
    WorkerLost,
)
from common.protocol import Timings
from gateway.client import Client
from gateway.handle import AsyncHandle, Handle
from gateway.result import Result
from gateway.routing import Routes

if TYPE_CHECKING:
    from gateway.aioclient import AsyncClient
    from gateway.ensembles.file import load_ensembles
    from gateway.routefile import load_routes

__all__ = [
    "AsyncClient",
    "AsyncHandle",
    "BrokerUnavailable",
    "Cancelled",
    "Client",
    "ConfigError",
    "DeadlineExceeded",
    "Handle",
    "InferenceError",
    "InternalError",
    "InvalidRequest",
    "ModelError",
    "ModelNotFound",
    "ModelUnavailable",
    "Overloaded",
    "PayloadTooLarge",
    "Result",
    "Routes",
    "Timings",
    "WorkerLost",
    "load_ensembles",
    "load_routes",
]


#: Imported on first use: asyncio alone takes longer to import than the rest of the client.
_LATER = {
    "AsyncClient": "gateway.aioclient",
    "load_ensembles": "gateway.ensembles.file",
    "load_routes": "gateway.routefile",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'gateway' has no attribute '{name}'")
    return getattr(import_module(_LATER[name]), name)
