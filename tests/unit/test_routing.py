"""Rules that lead requests to pools: which one takes a request, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from common.keys import DEFAULT_POOL
from gateway.routefile import load_routes, parse_routes
from gateway.routing import Condition, Route, Routes

RULES = """
default = "default-pool"

[[route]]
model = "gpt"
version = ">= 4"
pool = "gpu-pool-a"

[[route]]
model = "gpt"
pool = "gpu-pool-b"

[[route]]
model = "embed"
pool = "cpu-pool"
"""


@pytest.mark.parametrize(
    ("model", "version", "pool"),
    [
        ("gpt", "4", "gpu-pool-a"),
        ("gpt", "4.1", "gpu-pool-a"),
        ("gpt", "10", "gpu-pool-a"),
        ("gpt", "3", "gpu-pool-b"),
        ("gpt", "3.9", "gpu-pool-b"),
        ("gpt", None, "gpu-pool-b"),
        ("gpt", "latest", "gpu-pool-b"),
        ("embed", None, "cpu-pool"),
        ("embed", "2", "cpu-pool"),
        ("resnet", "7", "default-pool"),
    ],
)
def test_the_rules_of_the_design_lead_where_it_says(model: str, version: str | None, pool: str) -> None:
    assert parse_routes(RULES).pool(model, version) == pool


def test_without_a_file_everything_goes_to_the_default_pool() -> None:
    assert Routes().pool("anything", "1", "acme") == DEFAULT_POOL
    assert parse_routes("").pool("anything") == DEFAULT_POOL


def test_the_first_rule_that_matches_wins() -> None:
    routes = Routes([Route("first", model="gpt*"), Route("second", model="gpt-4")])

    assert routes.pool("gpt-4") == "first"


def test_a_glob_matches_the_whole_name_and_its_case() -> None:
    route = Route("p", model="gpt-?")

    assert route.mismatch("gpt-4", None, None) is None
    assert route.mismatch("gpt-42", None, None) is not None
    assert route.mismatch("GPT-4", None, None) is not None


@pytest.mark.parametrize(
    ("condition", "holds", "fails"),
    [
        (Condition(">=", "4"), ["4", "4.0", "v4", "10"], ["3", "3.99", "latest", "4-rc1"]),
        (Condition(">", "1.9"), ["1.10", "2"], ["1.9", "1.9.0", "1.8"]),
        (Condition("<", "2"), ["1", "1.99"], ["2", "2.0"]),
        (Condition("<=", "2"), ["2", "2.0.0", "1"], ["2.1"]),
        (Condition("=", "2"), ["2", "2.0"], ["2.1", "latest"]),
        (Condition("==", "latest"), ["latest"], ["2", "Latest"]),
        (Condition("!=", "2"), ["3", "latest"], ["2", "2.0"]),
    ],
)
def test_versions_compare_as_numbers(condition: Condition, holds: list[str], fails: list[str]) -> None:
    assert [version for version in holds + fails if condition.holds(version)] == holds


def test_conditions_joined_by_a_comma_hold_together() -> None:
    routes = parse_routes('[[route]]\nversion = ">= 2, < 4"\npool = "middle"')

    assert [routes.pool("m", version) for version in ("1", "2", "3.9", "4")] == [
        DEFAULT_POOL, "middle", "middle", DEFAULT_POOL,
    ]  # fmt: skip


def test_a_rule_for_a_tenant_takes_nobody_without_a_name() -> None:
    routes = Routes([Route("theirs", tenant="acme*")])

    assert routes.pool("m", tenant="acme-labs") == "theirs"
    assert routes.pool("m", tenant="other") == DEFAULT_POOL
    assert routes.pool("m") == DEFAULT_POOL


def test_every_pool_that_a_request_can_reach_is_listed_once() -> None:
    assert parse_routes(RULES + '[[route]]\nmodel = "x"\npool = "cpu-pool"').pools() == [
        "gpu-pool-a", "gpu-pool-b", "cpu-pool", "default-pool",
    ]  # fmt: skip


# Explaining


def test_an_explanation_names_the_rule_and_why_those_before_it_did_not_match() -> None:
    explanation = parse_routes(RULES).explain("embed", "2")

    assert explanation.pool == "cpu-pool"
    assert explanation.route is not None
    assert (explanation.route.line, str(explanation.route)) == (13, "model embed -> cpu-pool")
    assert [(route.line, reason) for route, reason in explanation.passed] == [
        (4, "model 'embed' does not match 'gpt'"),
        (9, "model 'embed' does not match 'gpt'"),
    ]


def test_an_explanation_reads_as_a_few_lines() -> None:
    assert str(parse_routes(RULES).explain("gpt", "3")) == (
        "gpu-pool-b, by line 9: model gpt -> gpu-pool-b\n"
        "  not by line 4 (model gpt, version >= 4 -> gpu-pool-a): version '3' is not >= 4"
    )
    assert str(Routes().explain("gpt")) == "default-pool, by the default"


def test_an_explanation_of_the_default_has_no_rule() -> None:
    explanation = parse_routes(RULES).explain("resnet")

    assert (explanation.pool, explanation.route, len(explanation.passed)) == ("default-pool", None, 3)


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (Route("p", versions=(Condition(">=", "4"),)), "the request names no version, and the rule asks for >= 4"),
        (Route("p", tenant="acme"), "the request names no tenant, and the rule asks for 'acme'"),
    ],
)
def test_a_reason_tells_what_the_request_lacks(route: Route, reason: str) -> None:
    assert route.mismatch("m", None, None) == reason


# Files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('default = "p"\nfallback = "q"', "2: unknown key 'fallback'; known are default and [[route]]"),
        ('\ndefault = "no spaces"', "2: default: pool must be"),
        ("default = 7", "1: default: pool must be"),
        ('route = "gpt"', "1: each rule is a table: [[route]]"),
        ('[route]\npool = "p"', "1: each rule is a table: [[route]]"),
        ('[[route]]\nmodel = "m"', "1: the rule has no pool"),
        ('[[route]]\npool = "p"', '1: the rule takes every request; write: default = "p"'),
        ('[[route]]\nmodel = "m"\npool = "p"\n\n[[route]]\nmodel = 7\npool = "p"', "6: model must be a string; got 7"),
        ('[[route]]\nmodel = "a b"\npool = "p"', "2: model must be a name or a glob such as \"gpt*\"; got 'a b'"),
        ('[[route]]\nmodel = "m"\npool = "p q"', "3: pool must be"),
        ('[[route]]\nmodel = "m"\npool = "p"\npriority = "high"', "4: unknown key 'priority'; a rule has model,"),
        ('[[route]]\nversion = "4"\npool = "p"', "2: version must be conditions such as \">= 4, < 5\"; got '4'"),
        ('[[route]]\nversion = "~ 4"\npool = "p"', "2: version must be conditions"),
        ('[[route]]\nversion = ">= 4,"\npool = "p"', "2: version must be conditions"),
        ('[[route]]\nversion = ">= new"\npool = "p"', "2: only numbers have an order: 'new' can be compared"),
        ('[[route]]\nmodel = "m"\npool = p', "3: this is not TOML: Invalid value"),
        ('[[route]]\nmodel = "m', "2: this is not TOML:"),
        ("[[route]\n", "1: this is not TOML:"),
    ],
)
def test_an_error_in_a_file_names_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_routes(text)

    assert str(caught.value).startswith(f"routes.toml:{message}")


def test_a_rule_is_found_behind_text_that_looks_like_one() -> None:
    text = '# [[route]]\ndefault = "p"\n[[route]]\nmodel = "m"\npool = """\\\n[[route]]"""\n\n[[route]]\nmodel = "*"'

    with pytest.raises(ConfigError, match=r"routes\.toml:5: pool must be"):
        parse_routes(text)
    with pytest.raises(ConfigError, match=r"routes\.toml:9: the rule has no pool"):
        parse_routes(text.replace('[[route]]"""', 'q"""').replace("\n\n", "\n\n# [[route]]\n"))


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(RULES)

    assert load_routes(file).pool("embed") == "cpu-pool"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load_routes(tmp_path / "none.toml")
