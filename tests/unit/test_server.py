"""Whether a Redis server will do."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from inference_worker.supervision.server import check_version, warnings


@pytest.mark.parametrize("version", ["6.2.0", "7.0.15", "8.1", "10.0.1", "unstable"])
def test_a_server_from_6_2_on_will_do(version):
    check_version({"redis_version": version})


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7", "2.8"])
def test_an_older_server_is_refused_by_its_version(version):
    with pytest.raises(ConfigError, match=rf"^Redis must be 6.2 or newer; the broker is {version}$"):
        check_version({"redis_version": version})


def test_a_memory_limit_that_evicts_is_warned_of():
    (warning,) = warnings({"maxmemory": 1000, "maxmemory_policy": "volatile-ttl"})

    assert "maxmemory-policy 'volatile-ttl'" in warning


@pytest.mark.parametrize(
    "info",
    [{"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, {"maxmemory": 9, "maxmemory_policy": "noeviction"}, {}],
)
def test_a_server_that_evicts_nothing_is_not_warned_of(info):
    assert warnings(info) == []
