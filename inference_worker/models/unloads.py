"""What operators have unloaded in a pool, remembered in Redis: who starts anew must not bring a bad version back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Set
from typing import TYPE_CHECKING

from common.broker import Broker
from common.connect import broker_errors
from common.errors import BrokerUnavailable
from common.orders import UNLOAD, Order, Report

if TYPE_CHECKING:
    import redis

log = logging.getLogger(__name__)

#: A process that starts asks a Redis that is away again so often.
RETRY_S = 1.0


def remember(broker: Broker, order: Order, report: Report, now_ms: int) -> None:
    """Write down what a worker did by an order: it holds for those that start later. Harmless to do twice."""
    if not report.ok:
        return
    if order.do == UNLOAD:
        broker.hold_back(report.models, now_ms)
    elif again := served_again(order, report, broker.unloaded().keys()):
        broker.hold_no_more(again)


def served_again(order: Order, report: Report, unloaded: Collection[str]) -> Set[str]:
    """Which of `unloaded` an obeyed load or reload brings back: what it changed, and what it named."""
    return {one for one in unloaded if one in report.models or _names(order, one)}


def _names(order: Order, label: str) -> bool:
    name, _, version = label.partition(":")
    return name == order.model and order.version in (None, version)


class Unloads:
    """For a process that starts: what it must not offer, as `name:version`."""

    def __init__(self, connect: Callable[[], redis.Redis], pool: str) -> None:
        self._connect = connect
        self._pool = pool

    def known(self) -> Set[str]:
        """Nothing where Redis does not answer now: then models load meanwhile, and `wait` tells."""
        try:
            return self._read()
        except BrokerUnavailable as error:
            log.warning("whether a model was unloaded is not known, so all load, and are offered when it is: %s", error)
            return frozenset()

    def wait(self) -> Set[str]:
        """Asks until Redis answers: without it there is no work either."""
        while True:
            try:
                return self._told(self._read())
            except BrokerUnavailable as error:
                log.info("%s; asked again in %.0f s", error, RETRY_S)
                time.sleep(RETRY_S)

    def _read(self) -> Set[str]:
        with broker_errors():
            client = self._connect()
        try:
            return Broker(client, self._pool).unloaded().keys()
        finally:
            client.close()

    def _told(self, unloaded: Set[str]) -> Set[str]:
        if unloaded:
            names = ", ".join(sorted(unloaded))
            log.warning("not served, as it was unloaded: %s; `models load NAME:VERSION` serves it again", names)
        return unloaded
