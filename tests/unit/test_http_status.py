"""Every error has a status, and the headers that go with it."""

from __future__ import annotations

import pytest

from common import errors
from common.errors import InferenceError, ModelError, Overloaded, Unauthenticated
from gateway.http.status import STATUS, Refusal, headers_of, retry_ms

CODES = {one.code for one in vars(errors).values() if isinstance(one, type) and issubclass(one, InferenceError)}


def test_every_code_has_a_status_and_no_status_is_for_a_code_that_is_none() -> None:
    assert set(STATUS) == CODES


def test_an_overload_tells_when_to_come_again_in_seconds_and_milliseconds() -> None:
    headers = dict(headers_of(Overloaded("full", 1250)))

    assert (headers[b"retry-after"], headers[b"retry-after-ms"], headers[b"x-should-retry"]) == (b"2", b"1250", b"true")


def test_what_will_fail_again_tells_so() -> None:
    assert dict(headers_of(ModelError("no")))[b"x-should-retry"] == b"false"
    assert retry_ms(ModelError("no")) is None


def test_a_key_is_asked_for_as_http_asks() -> None:
    assert dict(headers_of(Unauthenticated("a key is needed")))[b"www-authenticate"].startswith(b"Bearer ")


@pytest.mark.parametrize("status", [408, 413])
def test_a_body_that_is_not_read_ends_its_connection(status: int) -> None:
    assert (b"connection", b"close") in headers_of(Refusal(status, "no"))
