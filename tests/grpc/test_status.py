"""Every error has a status, and the metadata that goes with it."""

from __future__ import annotations

import pytest

from common import errors
from common.errors import BrokerUnavailable, InferenceError, ModelError, Overloaded

pytest.importorskip("grpc", reason="needs the extra grpc")

from gateway.grpc.status import STATUS, details_of, trailing_of

CODES = {one.code for one in vars(errors).values() if isinstance(one, type) and issubclass(one, InferenceError)}


def test_every_code_has_a_status_and_no_status_is_for_a_code_that_is_none() -> None:
    assert set(STATUS) == CODES


def test_an_overload_tells_when_to_come_again_to_people_and_to_grpcs_own_retries() -> None:
    told = dict(trailing_of(Overloaded("full", 1250)))

    assert told == {
        "x-error-code": "overloaded", "retry-after": "2", "retry-after-ms": "1250", "grpc-retry-pushback-ms": "1250",
    }  # fmt: skip


def test_what_will_fail_again_is_not_to_be_retried() -> None:
    assert dict(trailing_of(ModelError("no"))) == {"x-error-code": "model_error", "grpc-retry-pushback-ms": "-1"}
    assert dict(trailing_of(BrokerUnavailable("away")))["grpc-retry-pushback-ms"] == "1000"


def test_a_long_message_is_cut_to_what_metadata_hold() -> None:
    assert details_of(ModelError("short")) == "short"
    assert len(details_of(ModelError("é" * 10_000)).encode()) < 2010
