"""How a door is set up: what `inference-worker gateway` says by its flags, as one value that a child process reads."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict, dataclass, field
from typing import Self

from common.errors import ConfigError
from common.wire import MAX_BYTES
from gateway.door.limiter import Limits

#: `keys` of this name are those in the broker's Redis.
BROKER_KEYS = "broker"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Times in seconds, sizes in bytes. Raises ConfigError for a door that would be open to everybody."""

    http: Address
    broker_url: str
    routes: str | None = None
    #: Where requests go without `routes`; None is the default pool.
    pool: str | None = None
    ensembles: str | None = None
    #: A file, BROKER_KEYS, or None: nobody needs a key.
    keys: str | None = None
    insecure: bool = False
    limits: Limits = field(default_factory=Limits)
    adaptive: bool = False
    #: Where a request names none.
    timeout_s: float = 60.0
    max_body: int = MAX_BYTES
    #: For all bodies that are in memory at a time.
    max_bodies: int = 8 * MAX_BYTES
    #: A request's head, and then its body, must be there within this time; a reader who stops is cut off after it.
    slow_s: float = 30.0
    keep_alive_s: float = 75.0
    #: Readiness is off for so long before connections are refused: a load balancer must have seen it.
    notice_s: float = 2.0
    drain_s: float = 30.0
    #: Origins whose pages may ask from a browser; none by default.
    cors: tuple[str, ...] = ()
    log_level: str = "warning"

    def __post_init__(self) -> None:
        if self.keys is None and not self.http.is_loopback and not self.insecure:
            raise ConfigError(
                f"without keys the gateway listens on loopback addresses only, not on {self.http}: make keys by "
                "`inference-worker keys create TENANT` and name them by --keys, or say --insecure"
            )

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        said = json.loads(text)
        return cls(
            **{
                **said,
                "http": Address(**said["http"]),
                "limits": Limits(**said["limits"]),
                "cors": tuple(said["cors"]),
            }
        )


def parse_address(text: str) -> Address:
    """`:8000` (loopback), `0.0.0.0:8000`, `[::1]:8000`. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"an address must be [HOST]:PORT, such as :8000 or 0.0.0.0:8000; got '{text}'")
    return Address(host.strip("[]") or "127.0.0.1", int(port))
