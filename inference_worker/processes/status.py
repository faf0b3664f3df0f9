"""What a worker process tells its supervisor: status lines, and in them what it serves."""

from __future__ import annotations

import base64
import json
import os
from threading import Lock
from typing import TYPE_CHECKING, Any

from inference_worker.processes.title import set_title

if TYPE_CHECKING:
    from inference_worker.models.library import Library


class Status:
    """Status lines to the supervisor, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._stream = os.fdopen(descriptor, "w", encoding="utf-8")
        self._lock = Lock()

    def send(self, what: str, **facts: Any) -> None:
        with self._lock:
            self._stream.write(json.dumps({"is": what, **facts}) + "\n")
            self._stream.flush()

    def loading(self, model: str, done: int, of: int) -> None:
        self.send("loading", model=model, done=done, of=of)


class Offer:
    """What the process says that it serves: to its supervisor, and in its title."""

    def __init__(self, pool: str, device: str, library: Library, status: Status) -> None:
        self._pool = pool
        self._device = device
        self._library = library
        self._status = status
        self._lock = Lock()

    def ready(self, **seconds: float) -> None:
        self._status.send("ready", models=self._models(), **seconds)

    def changed(self) -> None:
        """Other versions are offered, or the same with other weights. What is said last is what holds."""
        with self._lock:
            self._status.send("models", models=self._models())

    def _models(self) -> dict[str, str]:
        from inference_worker.models.metadata import metadata

        models = {name: base64.b64encode(data).decode() for name, data in metadata(self._library.registry).items()}
        set_title(f"{self._pool} {self._device} {' '.join(sorted(models))}")
        return models
