"""Orders to a pool's workers, such as to load a model. Sends one, and gathers what each worker answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from common.broker import Broker, read_inboxes
from common.errors import ConfigError
from common.names import check_name
from common.orders import Order, Report, decode_report, encode
from gateway.admin.pools import Admin, WorkerStatus
from gateway.composer import check_timeout

if TYPE_CHECKING:
    import redis

TIMEOUT_S = 120.0
NO_ANSWER = "no answer"


class Manager:
    """Through one Redis client, which is used for nothing else meanwhile: it blocks. Raises BrokerUnavailable."""

    def __init__(self, client: redis.Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = client
        self._admin = Admin(client)
        self._clock = clock

    def pool_of(self, model: str) -> str:
        """The pool whose workers serve `model`; one that nobody serves yet is for the only pool there is.

        Raises ConfigError where that leaves a choice.
        """
        pools = self._admin.snapshot().pools
        serving = [pool.name for pool in pools if any(one.name == model for one in pool.models)]
        there = serving or [pool.name for pool in pools if any(worker.live for worker in pool.workers)]
        if len(there) != 1:
            found = f"it may be {' or '.join(there)}" if there else "no worker runs on this broker"
            raise ConfigError(f"name the pool of model '{model}' by --pool: {found}")
        return there[0]

    def give(
        self, pool: str, do: str, model: str, version: str | None, swap: bool = False, timeout_s: float = TIMEOUT_S
    ) -> list[Report]:
        """What each worker of the pool answers, by host and index; "no answer" for one that is lost or takes longer.

        Raises ConfigError where the pool has no workers, InvalidRequest for a name or a timeout that is none.
        """
        check_name("model", model)
        if version is not None:
            check_name("version", version)
        return self.tell(pool, Order("", do, model, version, swap), timeout_s)

    def tell(self, pool: str, order: Order, timeout_s: float = TIMEOUT_S) -> list[Report]:
        """As `give`, for an order of any kind; its id, its inbox and its time are set here."""
        check_timeout(timeout_s)
        there = self._workers(pool)
        expected = {name: worker for name, worker in there.items() if order.worker in ("", name)}
        if not expected:
            wanted = f"worker '{order.worker}'" if order.worker else "worker"
            raise ConfigError(f"pool '{pool}' has no {wanted} that could {order.what}")
        broker = Broker(self._redis, pool)
        id = f"operator-{uuid4().hex}"
        order = replace(order, id=id, timeout_ms=int(timeout_s * 1000), inbox=broker.keys.inbox(id))
        broker.give_order(encode(order))
        # One for each place: the child of a place that ends meanwhile, or is started again, has another name.
        places = {_place(name): self._silent(order, worker) for name, worker in expected.items()}
        for report in self._reports(pool, order, set(expected), timeout_s):
            places[_place(report.worker)] = report
        return sorted(places.values(), key=lambda one: (one.host, one.index))

    def _reports(self, pool: str, order: Order, missing: set[str], timeout_s: float) -> Iterator[Report]:
        """As they come, until none is `missing`, or what is missing has ended."""
        until_s = self._clock() + timeout_s
        while missing and (left_s := until_s - self._clock()) > 0:
            messages = read_inboxes(self._redis, [order.inbox], max(0.01, min(1.0, left_s)))
            for message in messages:
                report = decode_report(message)
                missing -= {name for name in missing if _place(name) == _place(report.worker)}
                yield report
            if not messages:
                missing &= self._workers(pool).keys()

    def _workers(self, pool: str) -> dict[str, WorkerStatus]:
        (status,) = self._admin.snapshot([pool]).pools
        return {worker.name: worker for worker in status.workers if worker.live}

    def _silent(self, order: Order, worker: WorkerStatus) -> Report:
        host, index = str(worker.about.get("host", "?")), worker.about.get("index", 0)
        return Report(order.id, worker.name, host, index if isinstance(index, int) else 0, False, NO_ANSWER)


def _place(worker: str) -> str:
    """A worker's name without its generation, the last number: a supervisor's process and one of its places."""
    return worker.rpartition("-")[0]
