"""Dashboard and rules are about metrics that exist, can be parsed, fire where they should, and lead to a runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.metrics.declared import ALL, Kind
from inference_worker.metrics.fleet import REASONS
from inference_worker.supervision.slot import State

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
DECLARED = {metric.name: metric for metric in ALL}
_OURS = re.compile(r"(?<![\w:])inference_(?:worker|gateway)_\w+")


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / name).read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text("utf-8"))["panels"])


def queries() -> Iterator[str]:
    """Those of the dashboard's panels, with its variables filled in as Grafana does."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "1m").replace("$pool", ".*")


def expressions() -> list[str]:
    return [*(rule["expr"] for name in ("alerts.yml", "recording.yml") for rule in rules(name)), *queries()]


def undeclared(expression: str) -> set[str]:
    """Names in it of metrics that there are none of."""
    return {name for name in _OURS.findall(expression) if name not in DECLARED and not is_part(name)}


def is_part(name: str) -> bool:
    """Whether it is what Prometheus has of a histogram."""
    whole, _, part = name.rpartition("_")
    metric = DECLARED.get(whole)
    return metric is not None and metric.kind is Kind.HISTOGRAM and part in ("bucket", "sum", "count")


def test_every_metric_in_a_rule_or_on_the_dashboard_is_declared() -> None:
    assert len(expressions()) > 80
    assert {name for expression in expressions() for name in undeclared(expression)} == set()


def test_a_metric_that_there_is_none_of_would_be_found() -> None:
    query = "rate(inference_worker_reqests_total[5m]) / inference_worker_pool_backlog_sum"

    assert undeclared(query) == {"inference_worker_reqests_total", "inference_worker_pool_backlog_sum"}


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(queries())

    assert [name for name in DECLARED if name not in shown] == []


def test_what_is_recorded_is_asked_for_by_its_name() -> None:
    recorded = {rule["record"] for rule in rules("recording.yml")}
    asked = {name for expression in expressions() for name in re.findall(r"\w+:inference_\w+(?::\w+)?", expression)}

    assert asked <= recorded


@pytest.mark.parametrize("rule", rules("alerts.yml"), ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_an_alert_says_what_happens_and_leads_to_its_runbook(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)

    assert anchor == rule["alert"].lower()
    assert rule["alert"] in headings
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]


def test_every_runbook_is_that_of_an_alert() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    section = page.partition("## When an alert fires")[2].partition("\n## ")[0]

    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == list(
        dict.fromkeys(rule["alert"] for rule in rules("alerts.yml"))
    )


def test_labels_in_alerts_have_values_that_there_are() -> None:
    said = " ".join(rule["expr"] for rule in rules("alerts.yml"))

    assert set(re.findall(r'state="([^"]+)"', said)) <= {state.value for state in State}
    for reasons in re.findall(r'exits_total{reason=~"([^"]+)"', said):
        assert set(reasons.split("|")) <= set(REASONS)


@pytest.mark.parametrize("expression", expressions())
def test_brackets_are_closed(expression: str) -> None:
    """What promtool sees too, for whoever has none."""
    bare = re.sub(r'"[^"]*"', "", expression)

    for opening, closing in ("()", "{}", "[]"):
        assert bare.count(opening) == bare.count(closing)


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    places = [panel["gridPos"] for panel in panels()]
    cells = [(x, y) for place in places for x in range(place["x"], place["x"] + place["w"])
             for y in range(place["y"], place["y"] + place["h"])]  # fmt: skip

    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert max(x for x, _ in cells) < 24


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool on the PATH (Debian: prometheus): the rules are parsed by the tests above alone")
    return found


def test_promtool_runs_the_rules_own_tests(promtool: str) -> None:
    done = subprocess.run([promtool, "test", "rules", "alerts_test.yml"], cwd=RULES, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_configuration_and_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    asked = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    (tmp_path / "dashboard.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}))

    for command in (
        ("check", "config", str(RULES / "prometheus.yml")),
        ("check", "rules", str(tmp_path / "dashboard.yml")),
    ):
        done = subprocess.run([promtool, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_shown_to_fire() -> None:
    tests = yaml.safe_load((RULES / "alerts_test.yml").read_text("utf-8"))["tests"]
    fired = {one["alertname"] for test in tests for one in test.get("alert_rule_test", ()) if one["exp_alerts"]}

    assert fired == {rule["alert"] for rule in rules("alerts.yml")}
