"""The pool's traffic plans as this worker read them last: which version answers what its sender left open."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from common.errors import BrokerUnavailable, InferenceError
from common.protocol import Request
from common.traffic import Plan, choose, read_plans
from inference_worker.models.registry import Registry

log = logging.getLogger(__name__)

#: A plan that an operator changed is followed so much later at most.
FRESH_S = 2.0


class Traffic:
    """Used by one thread at a time. Clients of ours choose by themselves: this is for producers of other languages."""

    def __init__(
        self, read: Callable[[], Mapping[str, bytes]], registry: Registry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._registry = registry
        self._clock = clock
        self._read_s = float("-inf")
        self._plans: Mapping[str, Plan] = {}

    def refresh(self) -> None:
        """Read the plans again where they are old. Raises BrokerUnavailable; else the old ones stay, and it is said."""
        now_s = self._clock()
        if now_s - self._read_s < FRESH_S:
            return
        try:
            self._plans = read_plans(self._read())
        except BrokerUnavailable:
            raise
        except InferenceError as error:
            log.warning("the traffic plans cannot be read, the old ones stay: %s", error)
        self._read_s = now_s

    def version(self, request: Request) -> str | None:
        """The version or alias to look for; None: the default one."""
        plan = self._plans.get(request.model)
        if plan is None:
            return request.version
        served: dict[str, str] = {}
        for title in self._registry.versions(request.model):
            served |= dict.fromkeys((*title.spec.aliases, title.spec.version), title.spec.version)
        return choose(plan, request.model, request.version, served, request.tenant, request.affinity, request.id)
