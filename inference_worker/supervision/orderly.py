"""An operator's orders to one pool, as they come in from Redis. Used by one thread."""

from __future__ import annotations

import logging

from common.broker import Broker
from common.errors import InvalidRequest, PayloadTooLarge
from common.orders import Order, decode_order

log = logging.getLogger(__name__)


class Orderly:
    """Reads each order once. What was given before it came, or is no longer waited for, is not obeyed."""

    def __init__(self) -> None:
        self._last: bytes | None = None

    def arrive(self, broker: Broker) -> None:
        """To be called before the first lease: an operator waits for the answers of all that have one."""
        if self._last is None:
            self._last = broker.last_order()

    def read(self, broker: Broker, now_ms: int) -> list[Order]:
        """The orders since the last call. `now_ms` is Redis's clock."""
        found = []
        for id, data in broker.orders_after(self._last or b"0-0"):
            self._last = id
            order = _decoded(broker, id, data)
            if order is not None and int(id.partition(b"-")[0]) + order.timeout_ms > now_ms:
                found.append(order)
        return found


def _decoded(broker: Broker, id: bytes, data: bytes) -> Order | None:
    try:
        order = decode_order(data)
        broker.keys.check_inbox(order.inbox)
        return order
    except (InvalidRequest, PayloadTooLarge) as error:
        log.warning("order %s is passed over: %s", id.decode(), error)
        return None
