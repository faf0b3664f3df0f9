"""The error tree: stable codes, and what each says of a retry."""

from __future__ import annotations

import pickle

import pytest

from common import errors
from common.errors import (
    WIRE_ERRORS,
    AccessDenied,
    BrokerRefuses,
    ConfigError,
    DiskFull,
    InferenceError,
    InternalError,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    RepositoryUnavailable,
    Unauthenticated,
    from_code,
)

ALL = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, InferenceError)]

#: The protocol's promise: a client of any language decides by these.
CODES = {
    "invalid_request": False,
    "model_not_found": False,
    "model_unavailable": False,
    "payload_too_large": False,
    "deadline_exceeded": True,
    "cancelled": False,
    "overloaded": True,
    "model_error": False,
    "worker_lost": False,
    "broker_unavailable": True,
    "internal_error": True,
}


def test_the_codes_on_the_wire_and_whether_they_are_retryable_are_the_promised_ones():
    assert {code: error.retryable for code, error in WIRE_ERRORS.items()} == CODES


def test_every_error_is_on_the_wire_but_the_base_the_refused_password_and_those_of_files_and_doors():
    not_on_the_wire = {
        ConfigError,
        RepositoryUnavailable,
        DiskFull,
        AccessDenied,
        BrokerRefuses,
        Unauthenticated,
        PermissionDenied,
    }

    assert set(ALL) == {*WIRE_ERRORS.values(), InferenceError, *not_on_the_wire}


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_explains_itself_to_a_user(error):
    assert error.__doc__
    assert error.__doc__.strip().endswith(".")


@pytest.mark.parametrize("code", CODES)
def test_a_code_read_off_the_wire_becomes_the_class_that_sent_it(code):
    error = from_code(code, "what happened")

    assert error.code == code
    assert error.message == str(error) == "what happened"


def test_a_code_of_a_newer_peer_becomes_an_internal_error_that_shows_it():
    error = from_code("quota_exceeded", "too much today")

    assert type(error) is InternalError
    assert error.message == "quota_exceeded: too much today"


def test_an_error_without_a_text_is_called_by_its_class():
    assert InvalidRequest().message == "InvalidRequest"


def test_overloaded_knows_how_long_to_wait():
    assert Overloaded("full", 250).retry_after_ms == 250
    assert Overloaded("full").retry_after_ms == 0


@pytest.mark.parametrize("error", [InvalidRequest("wrong"), Overloaded("full", 250)])
def test_an_error_survives_the_way_through_a_process_pool(error):
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert again.message == error.message
    assert vars(again) == vars(error)
