"""What Redis knows of one pool's workers and models, said by their supervisor again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from common.broker import Broker
from common.connect import broker_errors
from common.errors import BrokerUnavailable, InternalError
from common.wire import unpack_map
from inference_worker.events import BrokerBack, BrokerLost, Event, Warned
from inference_worker.server import check_version, warnings

if TYPE_CHECKING:
    import redis


@dataclass(frozen=True, slots=True)
class Presence:
    """What Redis shall know of one pool: consumer -> description, `name:version` -> metadata."""

    workers: Mapping[str, bytes] = field(default_factory=dict)
    models: Mapping[str, bytes] = field(default_factory=dict)

    def same_names(self, other: Presence) -> bool:
        return self.workers.keys() == other.workers.keys() and self.models.keys() == other.models.keys()


class Link:
    """One pool's presence in Redis, from one supervisor. Used by one thread."""

    def __init__(
        self, pool: str, connect: Callable[[], redis.Redis], lease_ms: int, clock: Callable[[], float]
    ) -> None:
        self._pool = pool
        self._connect = connect
        self._lease_ms = lease_ms
        self._clock = clock
        self._client: redis.Redis | None = None
        self._greeted = False
        self._lost_s: float | None = None
        self._leased: set[str] = set()
        self._published: dict[str, bytes] = {}

    def beat(self, presence: Presence) -> list[Event]:
        """Tell Redis; what is to be said of it. `lost` tells whether it heard. Raises ConfigError for an old server."""
        try:
            said = self._tell(presence)
        except (BrokerUnavailable, InternalError) as error:
            return self._missed(error)
        return said + self._heard()

    @property
    def lost(self) -> bool:
        return self._lost_s is not None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _tell(self, presence: Presence) -> list[Event]:
        client = self._opened()
        broker = Broker(client, self._pool)
        said = [] if self._greeted else self._greet(client, broker)
        self._renew(broker, presence.workers)
        self._publish(broker, presence.models)
        return said

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
        broker.create_groups()
        self._greeted = True
        return said

    def _renew(self, broker: Broker, workers: Mapping[str, bytes]) -> None:
        ended = self._leased - workers.keys()
        # A renewal whose answer is lost may have been done: such a lease must be ended too, some time.
        self._leased |= workers.keys()
        if ended:
            broker.renew(0, [(consumer, b"") for consumer in ended])
            self._leased -= ended
        if workers:
            broker.renew(self._lease_ms, workers.items())

    def _publish(self, broker: Broker, models: Mapping[str, bytes]) -> None:
        if not models:
            return
        known = broker.models()
        # Another supervisor may serve other weights under the same name: only our own change is news.
        news = {n: data for n, data in models.items() if n not in known or self._published.get(n) != data}
        if news:
            # It may be that Redis was wiped under us: then the groups are gone as well.
            broker.create_groups()
            broker.publish_models(news)
            self._published |= news
        self._retire(broker, known.keys() - models.keys())

    def _retire(self, broker: Broker, others: Set[str]) -> None:
        """Models that no worker serves any more: a version that was taken out must not stay the default."""
        if others and (gone := others - _served(broker.descriptions())):
            broker.retire_models(gone)

    def _missed(self, error: BrokerUnavailable | InternalError) -> list[Event]:
        self._greeted = False
        if self._lost_s is not None:
            return []
        self._lost_s = self._clock()
        return [BrokerLost(self._pool, error.message)]

    def _heard(self) -> list[Event]:
        if self._lost_s is None:
            return []
        away_s, self._lost_s = self._clock() - self._lost_s, None
        return [BrokerBack(self._pool, away_s)]


def _served(descriptions: Sequence[bytes]) -> set[str]:
    """The `name:version` of all that the pool's workers say they serve."""
    told = [unpack_map("a worker's description", one) for one in descriptions if one]
    return {str(name) for one in told for name in one.get("models", ())}


def _info(client: Any, section: str) -> dict[str, Any]:
    with broker_errors():
        info: dict[str, Any] = client.execute_command("INFO", section)
    return info
