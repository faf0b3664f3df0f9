"""How a door is set up: what `inference-worker gateway` says by its flags, as one value that a child process reads."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from common.errors import ConfigError
from common.wire import MAX_BYTES
from gateway.access.issuer import Issuer
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

    http: Address | None
    broker_url: str
    grpc: Address | None = None
    routes: str | None = None
    #: Where requests go without `routes`; None is the default pool.
    pool: str | None = None
    ensembles: str | None = None
    #: A file, BROKER_KEYS, or None: nobody needs a key.
    keys: str | None = None
    #: Whose tokens are accepted besides.
    issuer: Issuer | None = None
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
    #: Requests under way on one gRPC stream; beyond it no more are read.
    stream_requests: int = 256
    #: A gRPC connection is asked to come again after so long, and to whoever is there then; its calls end as they may.
    connection_age_s: float = 60.0
    #: Origins whose pages may ask from a browser; none by default.
    cors: tuple[str, ...] = ()
    log_level: str = "warning"
    #: Lines for people ("text"), or one JSON object each ("json").
    log_format: str = "text"
    #: Each request has its spans; OTEL_* variables alone do that, too.
    tracing: bool = False
    #: A folder where each process keeps the file of its metrics; in a process's own settings that file.
    metrics: str | None = None

    def __post_init__(self) -> None:
        for address in (self.http, self.grpc):
            if not self.asks_for_keys and address is not None and not address.is_loopback and not self.insecure:
                raise ConfigError(
                    f"without keys the gateway listens on loopback addresses only, not on {address}: make keys by "
                    "`inference-worker keys create TENANT` and name them by --keys, or say --insecure"
                )

    def in_place(self, number: int) -> Self:
        """Those of the process with that number: whoever starts there next counts on in the same file."""
        return self if self.metrics is None else replace(self, metrics=f"{self.metrics}/gateway-{number}")

    @property
    def asks_for_keys(self) -> bool:
        """Whether one must say who one is."""
        return self.keys is not None or self.issuer is not None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        said = json.loads(text)
        return cls(
            **{
                **said,
                "http": _address(said["http"]),
                "grpc": _address(said["grpc"]),
                "issuer": None if said["issuer"] is None else Issuer(**said["issuer"]),
                "limits": Limits(**said["limits"]),
                "cors": tuple(said["cors"]),
            }
        )


def _address(said: dict[str, Any] | None) -> Address | None:
    return None if said is None else Address(**said)


def parse_address(text: str) -> Address:
    """`:8000` (loopback), `0.0.0.0:8000`, `[::1]:8000`. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"an address must be [HOST]:PORT, such as :8000 or 0.0.0.0:8000; got '{text}'")
    return Address(host.strip("[]") or "127.0.0.1", int(port))
