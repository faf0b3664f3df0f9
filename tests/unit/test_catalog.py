"""What workers publish, as a client looks it up."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from common.scripts import Published
from common.traffic import Plan
from gateway.catalog import FRESH_S, Catalog, Catalogs, Declared, read_models
from tests.support.echo_worker import model


def catalog(*models: tuple[str, bytes]) -> Catalog:
    return Catalog(read_models(dict(models)))


def version_of(known: Catalog, version: str | None = None) -> str | None:
    info = known.find("m", version)
    return None if info is None else info.version


def test_without_a_version_the_default_answers() -> None:
    known = catalog(model("m", "1"), model("m", "2", default=False))

    assert version_of(known) == "1"


def test_where_two_releases_name_their_own_default_the_newest_wins() -> None:
    known = catalog(model("m", "10"), model("m", "9"), model("m", "latest"))

    assert version_of(known) == "10"


def test_a_version_is_found_by_its_alias() -> None:
    known = catalog(model("m", "1"), model("m", "2", default=False, aliases=["next"]))

    assert (version_of(known, "next"), version_of(known, "1"), version_of(known, "3")) == ("2", "1", None)


def test_a_model_that_nobody_published_is_no_error() -> None:
    assert Catalog().find("m", None) is None


def test_all_that_a_worker_declares_is_read() -> None:
    inputs = [{"name": "x", "dtype": "FP32", "shape": [-1]}]
    (info,) = read_models(dict([model("m", "1", inputs=inputs, cache_ttl_s=60, weights="w", rows=8)]))

    assert info.inputs == (Declared("x", "FP32", (-1,)),)
    assert (info.cache_ttl_s, info.weights, info.rows) == (60.0, "w", 8)


@pytest.mark.parametrize("damage", [{"rows": "many"}, {"inputs": [7]}, {"aliases": 3}])
def test_metadata_that_cannot_be_read_is_passed_over_and_said(
    damage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        models = read_models(dict([model("good"), ("bad:1", model("bad", **damage)[1]), ("worse:1", b"\xc1")]))

    assert [info.name for info in models] == ["good"]
    assert len(caplog.records) == 2


def test_a_catalog_is_fresh_for_some_seconds_and_known_for_longer() -> None:
    catalogs = Catalogs()
    catalogs.fetched("p", Published(dict([model("m")]), {}), 100.0)

    assert catalogs.fresh("p", 100.0 + FRESH_S - 0.1) is not None
    assert catalogs.fresh("p", 100.0 + FRESH_S) is None
    assert catalogs.known("p") is not None
    assert catalogs.known("q") is None


def test_a_pool_is_asked_for_until_it_was_fetched() -> None:
    catalogs = Catalogs()
    catalogs.ask("p")
    assert catalogs.asked() == "p"

    catalogs.fetched("p", Published({}, {}), 0.0)

    assert catalogs.asked() is None


def test_a_catalog_that_redis_refuses_to_show_counts_as_empty() -> None:
    catalogs = Catalogs()
    catalogs.ask("p")

    catalogs.refused("p", 0.0)

    assert catalogs.asked() is None
    fresh = catalogs.fresh("p", 1.0)
    assert fresh is not None
    assert fresh.models == []


# Traffic


def steered(plan: Plan, *models: tuple[str, bytes]) -> Catalog:
    return Catalog(read_models(dict(models)), {"m": plan})


TWO = (model("m", "1"), model("m", "2", default=False, aliases=["next"]))


def test_what_nobody_steers_stays_as_it_was_asked_for() -> None:
    known = catalog(*TWO)

    assert [known.choose("m", asked, None, None, "r") for asked in (None, "next", "7")] == [None, "next", "7"]


def test_a_plan_is_followed_for_its_model_alone() -> None:
    known = steered(Plan({"next": "1"}, {"2": 1}), *TWO, model("other"))

    assert [known.choose("m", asked, None, None, "r") for asked in (None, "next")] == ["2", "1"]
    assert known.choose("other", None, None, None, "r") is None


def test_every_version_that_may_answer_is_told() -> None:
    split = steered(Plan({"prod": "1"}, {"1": 1, "next": 1, "9": 1}), *TWO)

    assert [info.version for info in split.answering("m", None)] == ["1", "2"]
    assert [info.version for info in split.answering("m", "prod")] == ["1"]
    assert [info.version for info in catalog(*TWO).answering("m", None)] == ["1"]
    assert catalog(*TWO).answering("m", "9") == []


def test_models_and_plans_are_fetched_together() -> None:
    catalogs = Catalogs()

    catalogs.fetched("p", Published(dict(TWO), {"m": Plan(split={"2": 1}).encode()}), 0.0)

    known = catalogs.known("p")
    assert known is not None
    assert known.choose("m", None, None, None, "r") == "2"
