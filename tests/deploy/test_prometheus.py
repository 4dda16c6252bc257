"""Alerts fire, and only then; alerts and dashboard name only what /metrics exposes."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from app.metrics import REGISTRY

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "info": ("_info",), "histogram": ("_bucket", "_sum", "_count")}
_LABELS_OF_A_SCRAPE = {"job", "instance", "le"}


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, cwd=PROMETHEUS)


def read(name: str) -> Any:
    return yaml.safe_load((PROMETHEUS / name).read_text())


def rules() -> list[dict[str, Any]]:
    return [rule for group in read("rules.yml")["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana" / "aisle.json").read_text())


def panels() -> list[str]:
    """Every expression of the dashboard, its variables filled in."""
    board = dashboard()
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    found += [note["expr"] for note in board["annotations"]["list"]]
    return [one.replace("$__rate_interval", "5m").replace("$instance", ".*") for one in found]


@functools.cache
def exposed() -> dict[str, set[str]]:
    """Series name → label names, of every metric that the service declares."""
    found: dict[str, set[str]] = {}
    for collector in list(REGISTRY._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            sampled = {label for sample in family.samples for label in sample.labels}
            if family.type == "info":
                sampled |= {"version", "provider"}
            found |= {family.name + suffix: labels | sampled for suffix in _SUFFIXES[family.type]}
    return found


def unknown(expression: str, recorded: set[str]) -> set[str]:
    """Names of ours or of the process collector in an expression that nothing exposes."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    names = set(re.findall(r"\b(?:aisle|process|python)(?:[:_][a-zA-Z0-9_:]+)", bare))
    return names - exposed().keys() - recorded


@pytest.mark.parametrize("name", ["prometheus.yml", "kubernetes.yml"])
def test_a_scrape_configuration_is_valid(name: str) -> None:
    """promtool accepts it with the rules it names."""
    checked = promtool("check", "config", name)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.promise("M4", "each alert fires in its case and in no other", control="a wrong rule fails the same test")
def test_alerts_fire_and_only_then() -> None:
    """promtool plays every case of rules_test.yml; an expectation turned round fails."""
    assert promtool("test", "rules", "rules_test.yml").returncode == 0


@pytest.mark.promise("M4", "the control: a wrong rule fails")
def test_the_rule_tests_can_fail(tmp_path: Path) -> None:
    """Positive control: with every threshold out of reach, the firing cases fail."""
    text = (PROMETHEUS / "rules.yml").read_text()
    (tmp_path / "rules.yml").write_text(re.sub(r"> 0\.01$", "> 1", text, flags=re.MULTILINE))
    shutil.copy(PROMETHEUS / "rules_test.yml", tmp_path)
    played = promtool("test", "rules", tmp_path / "rules_test.yml")
    assert played.returncode != 0
    assert "HighErrorRate" in played.stderr


@pytest.mark.promise("M4", "a firing and a silent case for each alert")
def test_every_alert_has_a_firing_and_a_silent_case() -> None:
    """So that no alert is added without both."""
    cases = [case for test in read("rules_test.yml")["tests"] for case in test["alert_rule_test"]]
    firing = {case["alertname"] for case in cases if case["exp_alerts"]}
    # Another instance or collection in a firing case that is left out of its expectation is silent as well.
    shared = {"QueueGrowing", "RedisBreakerOpen", "ChangesLag"}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]} | shared
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert firing == alerts
    assert silent == alerts


@pytest.mark.promise("M4", "only metrics that /metrics exposes are named")
def test_alerts_and_dashboard_name_only_what_is_exposed() -> None:
    """A metric that was renamed would leave an alert silent for ever."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for expression in [rule["expr"] for rule in rules()] + panels():
        assert unknown(expression, recorded) == set(), expression
    assert unknown("rate(aisle_htpp_requests_total[5m])", recorded) == {"aisle_htpp_requests_total"}


@pytest.mark.promise("M4", "only labels that are there are selected by")
def test_alerts_and_dashboard_select_only_by_labels_that_are_there() -> None:
    """`{priority="search"}` on a metric without that label matches nothing."""
    for expression in [rule["expr"] for rule in rules()] + panels():
        for name, selector in re.findall(r"\b(aisle_[a-z_]+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
            assert labels <= exposed()[name] | _LABELS_OF_A_SCRAPE, f"{name}{{{selector}}}"


@pytest.mark.promise("M4", "every expression of the dashboard parses")
def test_every_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    """Written out as recording rules, which promtool parses."""
    listed = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(panels())]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": listed}]}))
    checked = promtool("check", "rules", tmp_path / "panels.yml")
    assert checked.returncode == 0, checked.stderr
    assert len(listed) > 20


def test_every_metric_of_the_service_is_on_the_dashboard() -> None:
    """What nobody looks at need not be exposed."""
    shown = " ".join(panels())
    declared = {re.sub("_(bucket|sum|count)$", "", name) for name in exposed() if name.startswith("aisle_")}
    assert {name for name in declared if name not in shown} == set()


def test_every_alert_points_at_its_part_of_the_runbook() -> None:
    """The anchor is the alert's name, and the part is there."""
    parts = {part.lower() for part in re.findall(r"^### (\w+)$", (DEPLOY / "README.md").read_text(), re.MULTILINE)}
    for rule in rules():
        if "alert" in rule:
            path, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert path == "deploy/README.md"
            assert anchor == rule["alert"].lower()
            assert anchor in parts


def test_what_metrics_exposes_follows_the_conventions() -> None:
    """promtool's linter reads an exposition of our own metrics and has nothing to say."""
    text = generate_latest(REGISTRY).decode()
    ours = "".join(line + "\n" for line in text.splitlines() if re.match(r"(# (HELP|TYPE) )?aisle_", line))
    linted = promtool("check", "metrics", stdin=ours)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")
