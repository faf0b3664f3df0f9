"""Which version answers: aliases set at run time, and splits by weight that move nobody needlessly."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import msgpack
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.traffic import MAX_SHARES, Plan, choose, draw, read_plan, read_plans

SERVED = {"1": "1", "2": "2", "stable": "1"}
WEIGHTS = st.dictionaries(st.sampled_from(["1", "2", "3", "4", "canary"]), st.floats(0.01, 100), min_size=1)
SUBJECTS = [f"user-{number}" for number in range(2000)]


def chosen(
    plan: Plan,
    asked: str | None = None,
    tenant: str | None = None,
    affinity: str | None = None,
    request_id: str = "r",
    served: dict[str, str] = SERVED,
) -> str | None:
    return choose(plan, "m", asked, served, tenant, affinity, request_id)


# Aliases


def test_an_alias_leads_to_its_version() -> None:
    assert chosen(Plan({"prod": "2"}), "prod") == "2"


def test_an_alias_of_the_operator_goes_before_one_of_model_toml() -> None:
    assert chosen(Plan({"stable": "2"}), "stable") == "2"
    assert chosen(Plan({"prod": "2"}), "stable") == "1"


def test_an_alias_may_lead_to_one_of_model_toml() -> None:
    assert chosen(Plan({"prod": "stable"}), "prod") == "1"


def test_a_version_that_is_served_stays_itself_whatever_aliases_there_are() -> None:
    assert chosen(Plan({"1": "2"}), "1") == "1"


def test_what_nobody_serves_is_asked_for_all_the_same() -> None:
    assert chosen(Plan({"prod": "9"}), "prod") == "9"
    assert chosen(Plan({"prod": "2"}), "7") == "7"


def test_a_version_that_is_asked_for_passes_by_the_split() -> None:
    assert chosen(Plan(split={"2": 1}), "1") == "1"


# Splits


def test_without_a_split_the_default_answers() -> None:
    assert chosen(Plan({"prod": "2"})) is None


def test_a_split_over_one_version_sets_the_default() -> None:
    assert {chosen(Plan(split={"1": 100}), request_id=one) for one in SUBJECTS[:50]} == {"1"}


def test_a_share_is_its_weight_of_all_weights() -> None:
    counts = Counter(chosen(Plan(split={"1": 4, "2": 1}), tenant=one) for one in SUBJECTS)

    # 2,000 draws of 1 in 5: the standard deviation is 18.
    assert abs(counts["2"] - 400) < 5 * 18


def test_an_alias_in_a_split_leads_where_it_leads_now() -> None:
    assert chosen(Plan({"canary": "2"}, {"canary": 1})) == "2"
    assert chosen(Plan({"canary": "1"}, {"canary": 1})) == "1"
    assert chosen(Plan(split={"stable": 1})) == "1"


@pytest.mark.parametrize(
    ("by", "fixed"), [("tenant", ("t", None, None)), ("key", (None, "u", None)), ("request", (None, None, "r"))]
)
def test_what_the_split_goes_by_stays_with_one_version(by: str, fixed: tuple[str | None, ...]) -> None:
    plan = Plan(split={"1": 1, "2": 1}, by=by)

    versions = set()
    for one in SUBJECTS[:100]:
        tenant, affinity, request_id = (known or one for known in fixed)
        versions.add(chosen(plan, None, tenant, affinity, request_id))

    assert len(versions) == 1


@pytest.mark.parametrize("by", ["tenant", "key", "request"])
def test_a_request_that_lacks_what_the_split_goes_by_goes_by_its_id(by: str) -> None:
    plan = Plan(split={"1": 1, "2": 1}, by=by)

    assert {chosen(plan, request_id=one) for one in SUBJECTS[:100]} == {"1", "2"}


def test_the_share_of_a_version_that_is_not_served_falls_to_the_others() -> None:
    plan = Plan(split={"1": 1, "2": 1, "9": 98})

    assert Counter(chosen(plan, tenant=one) for one in SUBJECTS[:100]).keys() == {"1", "2"}


def test_where_none_of_the_split_is_served_the_default_answers() -> None:
    assert chosen(Plan(split={"9": 1})) is None
    assert chosen(Plan(split={"1": 0, "9": 1})) is None


def test_one_subject_is_drawn_anew_for_each_model() -> None:
    assert {draw(f"m{number}", "user", {"1": 1, "2": 1}) for number in range(50)} == {"1", "2"}


@given(WEIGHTS, st.data(), st.floats(1.01, 100))
def test_a_version_that_gains_weight_only_takes_subjects_from_the_others(
    weights: dict[str, float], data: st.DataObject, factor: float
) -> None:
    label = data.draw(st.sampled_from(sorted(weights)))
    heavier = {**weights, label: weights[label] * factor}

    moved = {draw("m", one, heavier) for one in SUBJECTS[:300] if draw("m", one, heavier) != draw("m", one, weights)}

    assert moved <= {label}


@given(WEIGHTS, st.data())
def test_a_version_that_goes_moves_nobody_but_its_own(weights: dict[str, float], data: st.DataObject) -> None:
    assume(len(weights) > 1)
    gone = data.draw(st.sampled_from(sorted(weights)))
    left = {label: weight for label, weight in weights.items() if label != gone}

    assert all(draw("m", one, left) == drawn for one in SUBJECTS[:300] if (drawn := draw("m", one, weights)) != gone)


def test_from_95_to_90_of_a_hundred_five_of_a_hundred_move() -> None:
    before = [draw("m", one, {"1": 95, "2": 5}) for one in SUBJECTS]
    after = [draw("m", one, {"1": 90, "2": 10}) for one in SUBJECTS]

    moves = Counter(pair for pair in zip(before, after, strict=True) if pair[0] != pair[1])

    # 2,000 draws of 5 in 100: the standard deviation is 10.
    assert moves.keys() == {("1", "2")}
    assert abs(moves["1", "2"] - 100) < 5 * 10


@given(WEIGHTS, st.text(min_size=1))
def test_the_order_and_the_scale_of_weights_do_not_matter(weights: dict[str, float], subject: str) -> None:
    turned = {label: 4 * weights[label] for label in reversed(weights)}

    assert draw("m", subject, turned) == draw("m", subject, weights)


# What is stored


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = Plan({"prod": "2"}, {"1": 95, "canary": 5.5}, "key")

    assert read_plan(plan.encode()) == plan
    assert read_plan(None) == read_plan(Plan().encode()) == Plan()


def test_fields_of_a_newer_release_are_passed_over() -> None:
    assert read_plan(msgpack.packb({"split": {"1": 1}, "until": 7})) == Plan(split={"1": 1})


def test_a_label_with_an_empty_version_is_removed() -> None:
    assert Plan({"prod": "1", "canary": "2"}).with_aliases({"prod": "2", "canary": ""}) == Plan({"prod": "2"})


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"aliases": 3}, "aliases and split must be maps"),
        ({"aliases": {"no good": "1"}}, "an alias must be"),
        ({"aliases": {"prod": 1}}, "the version of alias 'prod' must be"),
        ({"split": {"1": -1}}, "the weight of version '1' must be a number from 0 to 1000000000; got -1"),
        ({"split": {"1": True}}, "the weight of version '1' must be a number from 0 to 1000000000; got True"),
        ({"split": {"1": float("inf")}}, "the weight of version '1' must be a number from 0 to 1000000000; got inf"),
        ({"split": {"1": 1e308, "2": 1e308}}, "a number from 0 to 1000000000; got 1e\\+308"),
        ({"split": {"1": float("nan")}}, "a number from 0 to 1000000000; got nan"),
        ({"split": {"1": 0}}, "at least one weight of a split must be over 0"),
        ({"split": {f"{n}": 1 for n in range(MAX_SHARES + 1)}}, "a split over 16 versions; got 0 and 17"),
        ({"split": {"1": 1}, "by": "luck"}, "a split is by tenant, key, request; got 'luck'"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_with_the_reason(message: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_plan(msgpack.packb(message))


def test_one_that_cannot_be_read_is_passed_over_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        plans = read_plans({"good": Plan({"a": "1"}).encode(), "bad": b"\xc1"})

    assert plans.keys() == {"good"}
    assert "model 'bad' is passed over" in caplog.text


def test_what_leads_nowhere_is_told() -> None:
    plan = Plan({"prod": "9", "canary": "2"}, {"1": 1, "8": 1})

    assert dict(plan.unserved(SERVED)) == {"prod": "9", "8": "8"}


def test_a_plan_reads_as_a_sentence() -> None:
    assert str(Plan({"prod": "2"}, {"1": 3, "2": 1})) == "prod -> 2; 1 75 %, 2 25 % by tenant"
    assert str(Plan()) == "no aliases, no split"
