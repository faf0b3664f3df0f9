"""Whose a pool's backlog is: the models that its oldest unfinished requests ask for. A sample: it reads them whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from common.connect import broker_errors
from common.keys import PoolKeys
from common.wire import peek

if TYPE_CHECKING:
    import redis

#: Of each stream so many are looked at, and so many in one call: each may hold a quarter of a megabyte.
OLDEST = 100
_PAGE = 20
#: Of a request under a key of its own so many bytes: our clients write the model before the inputs.
_HEAD_BYTES = 4096
#: Stands for a request that cannot be read, or whose payload key has expired.
UNKNOWN = "?"


def by_model(client: redis.Redis, pool: str) -> dict[str, int]:
    """Model -> how many of the oldest 100 requests of each of the pool's streams, the most first.

    Raises BrokerUnavailable.
    """
    counts = Counter(_model(client, fields) for stream in PoolKeys(pool).streams for fields in _oldest(client, stream))
    return dict(counts.most_common())


def _oldest(client: redis.Redis, stream: str) -> Iterator[Mapping[bytes, bytes]]:
    first = "-"
    for _ in range(0, OLDEST, _PAGE):
        with broker_errors():
            page: Any = client.xrange(stream, first, "+", _PAGE)
        yield from (fields for _, fields in page)
        if len(page) < _PAGE:
            return
        first = f"({page[-1][0].decode()}"


def _model(client: redis.Redis, fields: Mapping[bytes, bytes]) -> str:
    data = fields.get(b"d")
    if data is None and (key := fields.get(b"r")):
        with broker_errors():
            data = client.execute_command("GETRANGE", key, 0, _HEAD_BYTES - 1)
    return peek(data or b"", ("model",)).get("model", UNKNOWN)
