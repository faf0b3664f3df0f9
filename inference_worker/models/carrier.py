"""Brings models into memory and out of it: makes room, opens, measures, closes. For one thread at a time."""

from __future__ import annotations

from collections.abc import Collection

from common.errors import ModelUnavailable
from inference_worker.devices.memory import show_bytes
from inference_worker.models.library import Library
from inference_worker.models.loading import LoadTimes, Opener
from inference_worker.models.registry import Key, Title, key_of
from inference_worker.models.residency import give_back, resident_bytes
from inference_worker.models.spec import ModelSpec


class Carrier:
    """The opener's and the library's go-between."""

    def __init__(self, library: Library, opener: Opener) -> None:
        self._library = library
        self._opener = opener
        self._grown: dict[Key, int] = {}

    def bring(self, spec: ModelSpec, beside: Collection[Key] = ()) -> tuple[Title, LoadTimes]:
        """Load a model, run its sample, and hand it to the library; what is to be offered then.

        `beside`: what must not be evicted for it.

        Raises ModelUnavailable with figures where it does not fit, ConfigError or ModelError where it does not load.
        """
        need = self._opener.size(spec)
        what = f"model '{spec.name}:{spec.version}'"
        if key_of(spec) in beside:
            what += " beside the one that it replaces (--swap unloads that first)"
        while not self._library.make_room(what, need, beside):
            self.close_free()
        memory = self._opener.memory()
        if need > memory.free:
            raise ModelUnavailable(f"{what} needs {show_bytes(need)}; its device has {memory}")
        before = resident_bytes()
        loaded, times = self._opener.open(spec)
        self._library.arrived(loaded, self._size(spec, need, resident_bytes() - before))
        return Title(spec, loaded.backend.weights), times

    def fits(self, spec: ModelSpec) -> bool:
        """Whether it can be loaded without an eviction."""
        return self._library.fits(self._opener.size(spec))

    def retire(self, keys: Collection[Key]) -> None:
        """Unload these, which stay offered; returns when their memory is free."""
        while not self._library.retire(keys):
            self.close_free()

    def abandon(self) -> None:
        """Close what was brought since the last offer."""
        self._library.abandon()
        self.close_free()

    def close_free(self) -> None:
        """Close what has left the library and is used by nobody."""
        free = self._library.take_free()
        while free:
            loaded = free.pop()
            loaded.close()
            if not free:
                del loaded
                give_back()

    def _size(self, spec: ModelSpec, need: int, grown: int) -> int:
        """What a model counts: as it declares, else the larger of its files and of what it was seen to take.

        The least growth that was ever seen: what other threads take meanwhile, or is imported only once, adds to it.
        """
        if spec.residence.memory is not None:
            return need
        key = key_of(spec)
        self._grown[key] = min(grown, self._grown.get(key, grown))
        return max(need, self._grown[key])
