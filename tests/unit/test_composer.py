"""A call becomes a request: its pool, its id, its bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.digest import is_digest, request_digest
from common.errors import InvalidRequest
from common.protocol import Request, decode_request
from common.traffic import Plan
from gateway.catalog import Catalog, read_models
from gateway.composer import Composer, check_timeout, stream_of
from gateway.payload import Parcel
from gateway.routing import Route, Routes
from tests.support.echo_worker import model

NOTHING = Catalog()
CACHED = Catalog(read_models(dict([model("m", "2", cache_ttl_s=60.0, aliases=["stable"])])))


def declaring(*inputs: tuple[str, str]) -> Catalog:
    declared = [{"name": name, "dtype": dtype, "shape": [-1]} for name, dtype in inputs]
    return Catalog(read_models(dict([model("m", inputs=declared)])))


def compose(
    inputs: object = 1.0,
    catalog: Catalog = NOTHING,
    version: str | None = None,
    parameters: Any = None,
    outputs: Any = None,
    timeout_s: float = 60.0,
    tenant: str | None = None,
    cache: bool = True,
) -> Parcel:
    composer = Composer(Routes(default="p"))
    to = composer.destination("m", version, tenant)
    return composer.compose(to, catalog, inputs, parameters, outputs, 1, timeout_s, cache)


def request(parcel: Parcel) -> Request:
    assert isinstance(parcel.submission.value, bytes)
    return decode_request(parcel.submission.value)


def test_a_request_holds_what_was_asked() -> None:
    parcel = compose({"x": [1.0]}, NOTHING, "3", {"k": 1}, ["y"], 2.5, "acme")

    asked = request(parcel)

    assert (asked.model, asked.version, asked.tenant, asked.timeout_ms) == ("m", "3", "acme", 2500)
    assert (asked.parameters, asked.outputs, list(asked.inputs)) == ({"k": 1}, ("y",), ["x"])
    assert (parcel.pool, parcel.submission.tenant) == ("p", "acme")


def test_the_route_chooses_the_pool() -> None:
    composer = Composer(Routes([Route("theirs", tenant="acme")]), tenant="acme")

    assert composer.destination("m", None, None).keys.pool == "theirs"
    assert composer.destination("m", None, "other").keys.pool == "default-pool"


def test_ids_are_never_the_same_and_share_no_prefix_between_clients() -> None:
    first, second = Composer(Routes()), Composer(Routes())

    assert len({first.new_id() for _ in range(100)}) == 100
    assert first.new_id().split(".")[0] != second.new_id().split(".")[0]


# Natural values


def test_a_bare_value_is_the_only_input_of_the_model() -> None:
    assert list(request(compose("hello", declaring(("text", "BYTES")))).inputs) == ["text"]
    assert list(request(compose("hello")).inputs) == ["input"]
    assert list(request(compose("hello", declaring(("a", "BYTES"), ("b", "BYTES")))).inputs) == ["input"]


@pytest.mark.parametrize(
    ("value", "dtype", "sent"),
    [
        ([1, 2], "FP32", "FP32"),
        ([1.5], "FP64", "FP64"),
        ([1, 2], "UINT8", "UINT8"),
        (3, "INT32", "INT32"),
        ([1, -2], "UINT8", "INT64"),
        ([1.5], "INT32", "FP32"),
        ([True], "FP32", "BOOL"),
        (np.zeros(2, "f8"), "FP32", "FP64"),
        ("text", "BYTES", "BYTES"),
    ],
)
def test_python_numbers_take_the_declared_dtype_where_they_fit_and_arrays_keep_theirs(
    value: object, dtype: str, sent: str
) -> None:
    assert request(compose({"x": value}, declaring(("x", dtype)))).inputs["x"].dtype == sent


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs must hold 1 to 64 tensors; got 0"),
        ({"x": [[1], [1, 2]]}, "inputs.x: a list must be regular"),
        ({"x": object()}, "inputs.x: "),
        ({"no good": 1}, "an input name must be"),
        (np.zeros(1, "c8"), "inputs.input: dtype complex64 has no name"),
    ],
)
def test_an_input_that_cannot_be_sent_is_named(inputs: object, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compose(inputs)

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("outputs", ["y", [], ["no good"]])
def test_outputs_are_a_list_of_names(outputs: object) -> None:
    with pytest.raises(InvalidRequest, match="output"):
        compose(outputs=outputs)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), 8 * 24 * 3600, "1", True])
def test_a_timeout_is_a_positive_number_of_seconds(timeout: object) -> None:
    with pytest.raises(InvalidRequest, match="timeout must be"):
        check_timeout(timeout)


def test_a_priority_is_one_of_three() -> None:
    assert [stream_of(name) for name in ("high", "normal", "low")] == [0, 1, 2]
    with pytest.raises(InvalidRequest, match="priority must be one of high, normal, low; got 'urgent'"):
        stream_of("urgent")


# Cached models


def test_where_the_model_caches_the_id_is_the_digest_that_its_worker_computes() -> None:
    parcel = compose({"x": [1.0]}, CACHED, None, {"k": [1, {"z": 2}]}, ["y"], tenant="acme")

    asked = request(parcel)

    assert parcel.submission.request_id == request_digest(
        asked.tenant, "m", "2", "w1", asked.parameters, asked.inputs, asked.outputs
    )
    assert asked.id == parcel.submission.request_id


@pytest.mark.parametrize("version", [None, "stable", "2"])
def test_the_version_in_the_digest_is_the_version_that_is_asked_for(version: str | None) -> None:
    parcel = compose(catalog=CACHED, version=version)

    assert request(parcel).version == "2"
    assert parcel.pinned == (version != "2")


def test_a_call_may_pass_the_cache_by() -> None:
    assert not is_digest(compose(catalog=CACHED, cache=False).submission.request_id)


def test_a_model_that_nobody_published_or_that_does_not_cache_gets_an_id_of_its_own() -> None:
    assert not is_digest(compose(catalog=NOTHING).submission.request_id)
    assert not is_digest(compose(catalog=declaring(("x", "FP32"))).submission.request_id)


def test_parameters_are_checked_before_they_enter_a_digest() -> None:
    with pytest.raises(InvalidRequest, match=r"parameters\.k must be JSON-like"):
        compose(catalog=CACHED, parameters={"k": {1, 2}})


# Steered models


def steered(plan: Plan, **more: Any) -> Catalog:
    both = (model("m", "1", **more), model("m", "2", default=False, **more))
    return Catalog(read_models(dict(both)), {"m": plan})


def test_the_version_that_an_operator_chose_is_in_the_request_and_may_be_given_up() -> None:
    parcel = compose(catalog=steered(Plan(split={"2": 1})))

    assert request(parcel).version == "2"
    assert (parcel.version, parcel.pinned) == (None, True)


def test_the_digest_of_a_cached_model_holds_the_version_that_was_chosen() -> None:
    parcel = compose({"x": [1.0]}, steered(Plan({"prod": "2"}), cache_ttl_s=60.0), "prod")

    asked = request(parcel)

    assert asked.version == "2"
    assert asked.id == request_digest(None, "m", "2", "w1", {}, asked.inputs, None)


def test_one_affinity_goes_one_way_and_travels_along() -> None:
    catalog = steered(Plan(split={"1": 1, "2": 1}, by="key"))
    composer = Composer(Routes(default="p"))
    to = composer.destination("m", None, None)

    sent = [request(composer.compose(to, catalog, 1.0, None, None, 1, 1.0, True, "user-17")) for _ in range(20)]

    assert len({one.version for one in sent}) == 1
    assert {one.affinity for one in sent} == {"user-17"}


@pytest.mark.parametrize("affinity", ["", "x" * 257, 7])
def test_an_affinity_is_a_short_string(affinity: Any) -> None:
    composer = Composer(Routes(default="p"))

    with pytest.raises(InvalidRequest, match="affinity must be a string of 1 to 256 characters"):
        composer.compose(composer.destination("m", None, None), NOTHING, 1.0, None, None, 1, 1.0, True, affinity)


def test_a_pool_that_is_named_goes_before_the_routes() -> None:
    composer = Composer(Routes(default="p"))

    assert composer.destination("m", None, None, "mine").keys.pool == "mine"
    assert composer.destination("m", None, None).keys.pool == "p"
