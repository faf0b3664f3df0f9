"""One collector for all tests here, and the worker and the door that send their spans to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from common.keys import POOLS
from tests.support.collector import Collector, collector
from tests.support.command import MODELS
from tests.support.gateways import Gateway, gateway
from tests.support.leaks import keys_of
from tests.support.running import workers

if TYPE_CHECKING:
    import redis
    from opentelemetry.trace import Tracer


@pytest.fixture(scope="session")
def all_spans() -> Iterator[Collector]:
    with collector() as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture
def seen(all_spans: Collector) -> Collector:
    """What came in this test alone."""
    all_spans.spans.clear()
    return all_spans


@pytest.fixture(scope="session")
def tracer(all_spans: Collector) -> Iterator[Tracer]:
    """An application's own."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    yield provider.get_tracer("application")
    provider.shutdown()


@pytest.fixture(scope="session")
def served(redis_url: str, redis_client: redis.Redis, all_spans: Collector) -> Iterator[str]:
    """A pool with one worker that traces."""
    pool = f"traced-{uuid4().hex[:8]}"
    with workers(redis_url, pool, MODELS):
        yield pool
    redis_client.delete(*keys_of(redis_client, pool))
    redis_client.srem(POOLS, pool)


@pytest.fixture(scope="session")
def door(
    redis_url: str, served: str, all_spans: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with gateway(redis_url, served, tmp_path_factory.mktemp("traced"), "--tracing") as it:
        yield it
