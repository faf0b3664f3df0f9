"""A call to a parcel: its route, its id, its bytes. Pure: the pool's catalog is handed in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from common.digest import request_digest
from common.errors import InvalidRequest
from common.keys import PRIORITIES, PoolKeys
from common.names import check_name, shorten
from common.protocol import MAX_TIMEOUT_MS, Request, check_affinity, check_outputs, check_parameters, encode_request
from gateway.catalog import Catalog
from gateway.payload import Parcel, parcel, tensors
from gateway.routing import Routes

_STREAMS = {priority: stream for stream, priority in enumerate(PRIORITIES)}
_NO_PARAMETERS: Mapping[str, Any] = {}
#: Destinations are kept, as a client asks for few models; with many tenants they are found anew now and then.
_MOST_DESTINATIONS = 4096


class Destination(NamedTuple):
    """Where requests for one model, version and tenant go; the names are checked."""

    keys: PoolKeys
    model: str
    version: str | None
    tenant: str | None


class Composer:
    """One client's requests. Its ids start with 96 random bits: nobody can guess one, or meet one."""

    def __init__(self, routes: Routes, tenant: str | None = None) -> None:
        self.client_id = os.urandom(12).hex()
        self._numbers = count(1)
        self._routes = routes
        self._tenant = None if tenant is None else check_name("tenant", tenant)
        self._destinations: dict[tuple[str, str | None, str | None, str | None], Destination] = {}

    def new_id(self) -> str:
        return f"{self.client_id}.{next(self._numbers)}"

    def reroute(self, routes: Routes) -> None:
        """Other rules for all requests from now on."""
        self._routes = routes
        self._destinations.clear()

    def destination(self, model: str, version: str | None, tenant: str | None, pool: str | None = None) -> Destination:
        """In `pool`, or where the routes lead. Raises InvalidRequest for a name that is none."""
        try:
            known = self._destinations.get((model, version, tenant, pool))
        except TypeError:
            known = None  # Not hashable, and so no name: the checks say which one.
        return known if known is not None else self._find_destination(model, version, tenant, pool)

    def compose(
        self,
        to: Destination,
        catalog: Catalog,
        inputs: object,
        parameters: Mapping[str, Any] | None,
        outputs: Sequence[str] | None,
        stream: int,
        timeout_s: float,
        cache: bool,
        affinity: str | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> Parcel:
        """The request, encoded. Raises InvalidRequest, PayloadTooLarge.

        Where an operator steers the model, its version is chosen here. Where the model caches and `cache`
        is set, its id is the digest of all that its result depends on, and its version is the one that
        the digest holds.
        """
        own_id = self.new_id()
        version = catalog.choose(to.model, to.version, to.tenant, check_affinity(affinity), own_id)
        info = catalog.find(to.model, version)
        named, wanted = tensors(inputs, info), check_outputs(outputs)
        checked = _NO_PARAMETERS if parameters is None else check_parameters(parameters)
        if cache and info is not None and info.cache_ttl_s > 0:
            request_id = request_digest(to.tenant, info.name, info.version, info.weights, checked, named, wanted)
            version, generation = info.version, catalog.generation
        else:
            request_id, generation = own_id, None
        request = Request(
            request_id, to.model, named, version, to.tenant, checked, wanted, max(1, int(timeout_s * 1000)),
            None, trace, affinity,
        )  # fmt: skip
        data = encode_request(request)
        return parcel(to.keys, request_id, stream, to.tenant or "", data, to.version, version != to.version, generation)

    def _find_destination(self, model: str, version: str | None, tenant: str | None, pool: str | None) -> Destination:
        check_name("model", model)
        if version is not None:
            check_name("version", version)
        owner = self._tenant if tenant is None else check_name("tenant", tenant)
        leads_to = self._routes.pool(model, version, owner) if pool is None else pool
        found = Destination(PoolKeys(leads_to), model, version, owner)
        if len(self._destinations) >= _MOST_DESTINATIONS:
            self._destinations.clear()
        self._destinations[model, version, tenant, pool] = found
        return found


def stream_of(priority: str) -> int:
    """The index of the stream for `priority`. Raises InvalidRequest."""
    stream = _STREAMS.get(priority) if isinstance(priority, str) else None
    if stream is None:
        raise InvalidRequest(f"priority must be one of {', '.join(PRIORITIES)}; got {shorten(priority)}")
    return stream


def check_timeout(timeout_s: object, field: str = "timeout") -> float:
    """Seconds that a request may take. Raises InvalidRequest."""
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)):
        raise InvalidRequest(f"{field} must be a number of seconds; got {shorten(timeout_s)}")
    if not 0 < timeout_s <= MAX_TIMEOUT_MS / 1000:
        raise InvalidRequest(f"{field} must be over 0 and at most {MAX_TIMEOUT_MS // 1000} s; got {timeout_s}")
    return timeout_s
