"""The plainest HTTP client there is, for tests that look at statuses, headers and bytes."""

from __future__ import annotations

import http.client
import json
from typing import Any, NamedTuple


class Said(NamedTuple):
    """An answer; `headers` by their names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(address: str, method: str, path: str, body: object = None, **headers: str) -> Said:
    """`body` is sent as it is where it is bytes, else as JSON; `content_type="x"` is the header Content-Type."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    if data is not None and not isinstance(body, bytes):
        told.setdefault("content-type", "application/json")
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request(method, path, data, told)
        response = connection.getresponse()
        return Said(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()
