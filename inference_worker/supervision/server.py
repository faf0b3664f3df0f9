"""Whether a Redis server will do: its version, and whether it may throw work away. Pure: reads INFO's answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from common.embedded import OLDEST
from common.errors import ConfigError


def check_version(info: Mapping[str, Any]) -> None:
    """Raises ConfigError for a server whose INFO says that it is older than 6.2."""
    version = str(info.get("redis_version", ""))
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < OLDEST:
        raise ConfigError(f"Redis must be 6.2 or newer; the broker is {version}")


def warnings(info: Mapping[str, Any]) -> list[str]:
    """What in INFO's answer may lose work."""
    policy, limit = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory", 0))
    if not limit or policy == "noeviction":
        return []
    return [
        f"Redis may throw work away: maxmemory is {limit} bytes and maxmemory-policy '{policy}'; "
        "set it to 'noeviction', so that a full Redis refuses new work instead"
    ]
