"""An entry to parts that may run, or to a refusal that its sender understands. Decides; holds and sends nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from common.digest import is_digest, request_digest
from common.errors import BrokerUnavailable, InferenceError, InternalError, InvalidRequest, WorkerLost
from common.keys import PoolKeys
from common.logs import about
from common.names import shorten
from common.protocol import Request, decode_request, sender_of
from common.scripts import Entry
from common.text import describe
from inference_worker.backends.base import ModelRequest
from inference_worker.item import Item, Part
from inference_worker.marks import overdue
from inference_worker.models.library import Library
from inference_worker.models.registry import Key, Loaded
from inference_worker.models.spec import PREPROCESS
from inference_worker.models.traffic import Traffic
from inference_worker.outcome import Refusal, refused
from inference_worker.prepare import check_inputs, parts_of, preprocess

log = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """An entry whose model is not in memory: it is to be admitted again when that is loaded, or has failed to."""

    entry: Entry
    key: Key


class Admission:
    """Checks each entry once; behind it everything is known to be sound."""

    def __init__(
        self,
        keys: PoolKeys,
        library: Library,
        traffic: Traffic,
        fetch: Callable[[str], bytes | None],
        max_deliveries: int,
        reply_ttl_ms: int,
    ) -> None:
        self._keys = keys
        self._library = library
        self._traffic = traffic
        self._fetch = fetch
        self._max_deliveries = max_deliveries
        self._reply_ttl_ms = reply_ttl_ms

    def admit(self, entry: Entry, taken_s: float, now_ms: int) -> list[Part] | Item | Waiting | Refusal:
        """The entry's parts, or why there are none yet or never. Raises BrokerUnavailable alone.

        An item is returned where the model has threads of its own for its preprocess: they `prepare` it.
        `taken_s` is the monotonic time of the take, `now_ms` Redis's.
        """
        self._traffic.refresh()
        try:
            data = self._data(entry)
        except BrokerUnavailable:
            raise
        except Exception as failure:
            error = failure if isinstance(failure, InferenceError) else InvalidRequest(describe(failure))
            return Refusal(entry, self._id_of_reference(entry), "", "", error, dead=f"unreadable: {error}")
        trace = None
        try:
            self._check_deliveries(entry)
            request = decode_request(data)
            trace = request.trace
            return self._parts(entry, request, taken_s, now_ms)
        except InferenceError as error:
            return self._refusal(entry, data, error)._replace(trace=trace)
        except Exception as error:
            return self._refusal(entry, data, _bug(entry, error, about(sender_of(data).request_id)))

    def prepare(self, item: Item) -> list[Part] | Refusal:
        """An item's parts, or why it has none. For several threads at once."""
        try:
            return parts_of(item, preprocess(item.loaded, item.model_request))
        except InferenceError as error:
            return refused(item, error)
        except Exception as error:
            return refused(item, _bug(item.entry, error, about(item.request.id, item.request.trace)))

    def _data(self, entry: Entry) -> bytes:
        if entry.payload is not None:
            return entry.payload
        if entry.reference is None:
            raise InvalidRequest("the entry has neither the field d (the request) nor r (the key that holds it)")
        key = entry.reference.decode(errors="replace")
        if self._keys.id_of_payload(key) is None:
            raise InvalidRequest(f"the field r must name a payload key of this pool; got {shorten(key)}")
        payload = self._fetch(key)
        if payload is None:
            raise InvalidRequest(f"the payload '{key}' has expired or was never stored")
        return payload

    def _id_of_reference(self, entry: Entry) -> str | None:
        return self._keys.id_of_payload(entry.reference.decode(errors="replace")) if entry.reference else None

    def _check_deliveries(self, entry: Entry) -> None:
        if entry.deliveries >= self._max_deliveries:
            raise WorkerLost(
                f"{entry.deliveries} workers died while they ran this request (bound {self._max_deliveries}); "
                "it is kept as a dead letter"
            )

    def _parts(self, entry: Entry, request: Request, taken_s: float, now_ms: int) -> list[Part] | Item | Waiting:
        if request.reply_to is not None:
            self._keys.check_inbox(request.reply_to)
        if entry.reference is not None and self._id_of_reference(entry) != request.id:
            raise InvalidRequest(f"id must be that of the payload key {shorten(entry.reference)}; got {request.id}")
        added_ms = entry.added_ms
        deadline_ms = None if request.timeout_ms is None else added_ms + request.timeout_ms
        if deadline_ms is not None and deadline_ms <= now_ms:
            raise overdue(request.timeout_ms or 0)
        loaded = self._library.lend(entry.place, request.model, self._traffic.version(request))
        if not isinstance(loaded, Loaded):
            return Waiting(entry, loaded)
        checked = check_inputs(loaded.spec, {name: tensor.numpy() for name, tensor in request.inputs.items()})
        model_request = ModelRequest(checked.arrays, checked.rows, request.parameters)
        item = Item(
            entry, request, loaded, model_request, checked.single, self._keep_ms(request, loaded),
            deadline_ms, taken_s, max(0, now_ms - added_ms) * 1000,
        )  # fmt: skip
        if PREPROCESS in loaded.backend.stages:
            return item
        return parts_of(item, preprocess(loaded, model_request))

    def _keep_ms(self, request: Request, loaded: Loaded) -> int:
        """How long the result is kept. Under a digest only if it is that of just this computation, else not at all.

        The digest is computed again here, so that nobody can plant a result under another request's
        id, and a client that still believes in older weights caches nothing under theirs.
        """
        if not is_digest(request.id):
            return self._reply_ttl_ms
        spec = loaded.spec
        expected = request_digest(
            request.tenant, spec.name, spec.version, loaded.backend.weights,
            request.parameters, request.inputs, request.outputs,
        )  # fmt: skip
        return int(spec.cache_ttl_s * 1000) if request.id == expected else 0

    def _refusal(self, entry: Entry, data: bytes, error: InferenceError) -> Refusal:
        sender = sender_of(data)
        request_id = sender.request_id or self._id_of_reference(entry)
        try:
            inbox = self._keys.check_inbox(sender.reply_to) if sender.reply_to else ""
        except InvalidRequest:
            inbox = ""
        dead = str(error) if isinstance(error, WorkerLost) else ""
        if request_id is None and not inbox:
            dead = f"no one to tell: {error}"
        return Refusal(entry, request_id, inbox, sender.model, error, dead)


def _bug(entry: Entry, error: Exception, whose: Mapping[str, str]) -> InternalError:
    log.exception("entry %s could not be admitted", entry.id.decode(), extra=whose)
    return InternalError(f"the request could not be read: {describe(error)}. This is a bug.")
