"""Brings models into memory and out of it: makes room, opens, measures, closes. Thread-safe."""

from __future__ import annotations

from collections.abc import Collection
from threading import Lock

from common.errors import ModelUnavailable
from inference_worker.devices.memory import show_bytes
from inference_worker.models.growth import Growth
from inference_worker.models.library import Library
from inference_worker.models.loading import LoadTimes, Opener
from inference_worker.models.registry import Key, Loaded, Title, key_of
from inference_worker.models.residency import give_back, resident_bytes
from inference_worker.models.spec import ModelSpec


class Carrier:
    """The opener's and the library's go-between."""

    def __init__(self, library: Library, opener: Opener) -> None:
        self._library = library
        self._opener = opener
        self._growth = Growth()
        self._measuring = Lock()

    def bring(self, spec: ModelSpec, beside: Collection[Key] = ()) -> tuple[Title, LoadTimes]:
        """Load a model, run its sample, and hand it to the library; what is to be offered then.

        `beside`: what must not be evicted for it.

        Raises ModelUnavailable with figures where it does not fit, ConfigError or ModelError where it does not load.
        """
        loaded, times, size, need = self._load(spec, beside)
        self._library.arrived(loaded, size, need)
        return Title(spec, loaded.backend.weights), times

    def serve(self, spec: ModelSpec) -> tuple[bool, LoadTimes]:
        """`bring` a version that is offered, and lend it at once; whether that is news to others."""
        loaded, times, size, need = self._load(spec, ())
        return self._library.serve(loaded, size, need), times

    def _load(self, spec: ModelSpec, beside: Collection[Key]) -> tuple[Loaded, LoadTimes, int, int]:
        """The model, the bytes that it counts with, and those that are kept for it."""
        need = self._opener.size(spec)
        what = f"model '{spec.name}:{spec.version}'"
        if key_of(spec) in beside:
            what += " beside the one that it replaces (--swap unloads that first)"
        while not self._library.make_room(what, need, beside):
            self.close_free()
        try:
            loaded, times, size = self._open(spec, what, need)
        except BaseException:
            self._library.forgo(need)
            raise
        return loaded, times, size, need

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
        if free := self._library.take_free():
            while free:
                free.pop().close()
            give_back()
            self._library.closed()

    def _open(self, spec: ModelSpec, what: str, need: int) -> tuple[Loaded, LoadTimes, int]:
        """The model, and the bytes that it counts with: as it declares, else as its files and its process tell."""
        memory = self._opener.memory()
        if need > memory.free:
            raise ModelUnavailable(f"{what} needs {show_bytes(need)}; its device has {memory}")
        with self._measuring:
            load = self._growth.begin(key_of(spec), need, resident_bytes())
        try:
            loaded, times = self._opener.open(spec)
        except BaseException:
            with self._measuring:
                self._growth.give_up(load)
            raise
        with self._measuring:
            size = self._growth.end(load, resident_bytes())
        return loaded, times, need if spec.residence.memory is not None else size
