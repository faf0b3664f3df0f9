"""One pool's link to Redis, from one supervisor: tells again and again what is there, and hears what operators want."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence, Set
from typing import TYPE_CHECKING, Any

from common.broker import Broker
from common.connect import broker_errors
from common.errors import (
    AccessDenied,
    BrokerUnavailable,
    ConfigError,
    InternalError,
    InvalidRequest,
    PayloadTooLarge,
)
from common.memory import Fullness, Memory, read_memory
from common.orders import Order, Report, encode
from common.wire import unpack_map
from inference_worker.models.unloads import remember
from inference_worker.supervision.events import (
    BrokerBack,
    BrokerForgot,
    BrokerFull,
    BrokerHasRoom,
    BrokerLost,
    Event,
    Ordered,
    Warned,
)
from inference_worker.supervision.orderly import Orderly
from inference_worker.supervision.presence import Presence
from inference_worker.supervision.server import check_version, warnings
from inference_worker.supervision.settled import Settled

if TYPE_CHECKING:
    import redis

log = logging.getLogger(__name__)

#: So often Redis is asked how full it is.
MEMORY_EVERY_S = 10.0
#: So often the settings of operators are looked at.
SETTINGS_EVERY_S = 10.0

#: (an operator's order, what became of it)
Answer = tuple[Order, Report]


class Link:
    """One pool's presence in Redis, from one supervisor; `max_backlog` is the pool's bound. Used by one thread."""

    def __init__(
        self,
        pool: str,
        connect: Callable[[], redis.Redis],
        lease_ms: int,
        clock: Callable[[], float],
        max_backlog: int | None = None,
    ) -> None:
        self._pool = pool
        self._connect = connect
        self._lease_ms = lease_ms
        self._clock = clock
        self._max_backlog = max_backlog
        self._client: redis.Redis | None = None
        self._greeted = self._ever_greeted = self._denied = False
        self._lost_s: float | None = None
        self._leased: set[str] = set()
        self._published: dict[str, bytes] = {}
        self._orderly = Orderly()
        self._fullness = Fullness()
        self._measured_s = -math.inf
        self._settled = Settled()
        self._looked_s = -math.inf
        self._gone = ""

    def beat(self, presence: Presence, answers: Sequence[Answer] = ()) -> list[Event]:
        """Tell Redis, and then whoever waits for `answers`; what is to be said of it. `lost` tells whether it heard.

        Raises ConfigError for an old server, and for one that lets us in neither now nor ever before.
        """
        try:
            said = self._tell(presence, answers)
        except (BrokerUnavailable, InternalError) as error:
            if isinstance(error, AccessDenied) and not self._ever_greeted:
                raise ConfigError(error.message) from error
            return self._missed(error)
        return said + self._heard()

    @property
    def lost(self) -> bool:
        return self._lost_s is not None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _tell(self, presence: Presence, answers: Iterable[Answer]) -> list[Event]:
        client = self._opened()
        broker = Broker(client, self._pool)
        self._look(broker)
        said = [] if self._greeted else self._greet(client, broker)
        self._orderly.arrive(broker)
        now_ms = self._renew(broker, presence)
        self._publish(broker, presence)
        for order, report in answers:
            remember(broker, order, report, now_ms)
            self._looked_s = -math.inf  # What he has unloaded, or loaded again, is to be known when it is lost.
            broker.tell(order.inbox, encode(report))
        memory = self._measured(client)
        orders = self._orderly.read(broker, now_ms)
        return [*said, *self._forgot(), *self._fills(memory), *(Ordered(self._pool, order) for order in orders)]

    def _opened(self) -> redis.Redis:
        # Not in __init__: a Cluster's client looks for its nodes when it is made.
        if self._client is None:
            with broker_errors():
                self._client = self._connect()
        return self._client

    def _greet(self, client: redis.Redis, broker: Broker) -> list[Event]:
        """A server that we meet, or meet again: it may be another one, or have lost everything."""
        check_version(_info(client, "server"))
        said: list[Event] = [Warned(text) for text in warnings(_info(client, "memory"))]
        self._prepare(broker)
        self._greeted = self._ever_greeted = True
        return said

    def _look(self, broker: Broker) -> None:
        """Before anything is written: whether this server has lost what operators had set."""
        if not self._ever_greeted:
            return
        knows_us = not self._leased or any(broker.has_lease(consumer) for consumer in self._leased)
        now_s = self._clock()
        if knows_us and now_s - self._looked_s < SETTINGS_EVERY_S:
            return
        self._looked_s = now_s
        lost = self._settled.see(broker.traffic(), broker.limits().keys(), broker.unloaded(), knows_us)
        for name, when_ms in lost.unloaded.items():
            broker.hold_back([name], when_ms)
            log.warning("this Redis is empty, and is told again that %s of pool '%s' was unloaded", name, self._pool)
        self._gone = lost.told or self._gone

    def _forgot(self) -> list[Event]:
        gone, self._gone = self._gone, ""
        return [BrokerForgot(self._pool, gone)] if gone else []

    def _measured(self, client: redis.Redis) -> Memory | None:
        """A full Redis lets workers do their work, and refuses clients theirs: it must be asked."""
        now_s = self._clock()
        if now_s - self._measured_s < MEMORY_EVERY_S:
            return None
        self._measured_s = now_s
        return read_memory(_info(client, "memory"))

    def _fills(self, memory: Memory | None) -> list[Event]:
        if memory is None:
            return []
        if self._fullness.worse(memory):
            return [BrokerFull(self._pool, memory)]
        return [BrokerHasRoom(self._pool, memory)] if self._fullness.over(memory) else []

    def _prepare(self, broker: Broker) -> None:
        """What a pool needs before it is used; an operator may have wiped it."""
        broker.create_groups()
        broker.set_limits(backlog=self._max_backlog)

    def _renew(self, broker: Broker, presence: Presence) -> int:
        """Redis's time in ms; 0 where nobody is there to be told of."""
        workers = presence.workers
        ended = self._leased - workers.keys()
        # A renewal whose answer is lost may have been done: such a lease must be ended too, some time.
        self._leased |= workers.keys()
        if unused := ended & presence.unused:
            # A lapsed lease would stay until another worker takes over, in a mistyped pool for ever.
            broker.withdraw([*unused])
        if left := ended - unused:
            broker.renew(0, [(consumer, b"") for consumer in left])
        self._leased -= ended
        return broker.renew(self._lease_ms, workers.items()) if workers else 0

    def _publish(self, broker: Broker, presence: Presence) -> None:
        models = presence.models
        if not models and not presence.serving:
            return
        known = broker.models()
        # Another supervisor may serve other weights under the same name: only our own change is news.
        news = {n: data for n, data in models.items() if n not in known or self._published.get(n) != data}
        if news:
            # It may be that Redis was wiped under us: then the groups are gone as well.
            self._prepare(broker)
            broker.publish_models(news)
            self._published |= news
        self._retire(broker, known.keys() - models.keys())

    def _retire(self, broker: Broker, others: Set[str]) -> None:
        """Models that no worker serves any more: a version that was taken out must not stay the default."""
        if others and (gone := others - _served(broker.descriptions(), others)):
            broker.retire_models(gone)

    def _missed(self, error: BrokerUnavailable | InternalError) -> list[Event]:
        self._greeted = False
        denied, was_denied = isinstance(error, AccessDenied), self._denied
        self._denied = denied or was_denied
        if self._lost_s is None:
            self._lost_s = self._clock()
        elif was_denied or not denied:
            return []
        # A changed password shows only after the connections that were let in with the old one are cut.
        return [BrokerLost(self._pool, error.message)]

    def _heard(self) -> list[Event]:
        if self._lost_s is None:
            return []
        away_s, self._lost_s, self._denied = self._clock() - self._lost_s, None, False
        return [BrokerBack(self._pool, away_s)]


def _served(descriptions: Sequence[bytes], known: Set[str]) -> Set[str]:
    """The `name:version` of all that the pool's workers say they serve: `known` where one cannot be understood."""
    try:
        told = [unpack_map("a worker's description", one) for one in descriptions if one]
        return {str(name) for one in told for name in one.get("models", ())}
    except (InvalidRequest, PayloadTooLarge, TypeError) as error:
        log.warning("a worker's description cannot be read, so no model is retired: %s", error)
        return known


def _info(client: Any, section: str) -> dict[str, Any]:
    with broker_errors():
        info: dict[str, Any] = client.execute_command("INFO", section)
    return info
