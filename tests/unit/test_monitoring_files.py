"""The dashboard, the alerts and their page name metrics and labels that exist, and no others."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest

from parkingd.adapters.ops.health import DEGRADATIONS
from parkingd.adapters.ops.metrics import families
from tests.adapters.ops_stage import OpsOnStage
from tests.unit.scripted import Stage
from tests.unit.test_metrics import LABELS

DOCS = Path(__file__).parents[2] / "docs"
ALERTS = DOCS / "monitoring/alerts.yaml"
ALERT_TESTS = DOCS / "monitoring/alerts_test.yaml"
DASHBOARD = DOCS / "monitoring/grafana-dashboard.json"
PICTURE = DOCS / "monitoring/dashboard.svg"
HOWTO = DOCS / "howto-monitoring.md"

TARGET_LABELS = {"namespace", "job", "instance"}
"""Prometheus adds these to whatever it scrapes."""

REQUIRED = {"GateUnowned", "GateDoubleOwned", "ReplicasDiverge", "LotOverbooked", "MemberFlapping"}

SUFFIXES = {
    "gauge": ("",),
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
}


@pytest.fixture(scope="module")
def shown() -> dict[str, set[str]]:
    """Names of samples -> labels."""
    (box,) = Stage().found("gary", gates=1)
    with OpsOnStage(box) as ops:
        found = list(families(ops.look()))
    names: dict[str, set[str]] = {}
    for family in found:
        labels = LABELS.get(family.name.removeprefix("parkingd_"), set())
        for suffix in SUFFIXES[family.type]:
            names[family.name + suffix] = labels
    return names


def expressions() -> list[str]:
    """Of every panel, every variable and every alert."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    found += [each["query"] for each in dashboard["templating"]["list"]]
    rules = ALERTS.read_text()
    found += re.findall(r"^ +expr: ((?:>-\n)?.*(?:\n +> .*)*)", rules, re.MULTILINE)
    return found


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:parkingd|process)_[a-z_]+", text))


def test_every_metric_of_an_expression_exists(shown: dict[str, set[str]]) -> None:
    named = {name for text in expressions() for name in metrics_in(text)}
    assert named <= shown.keys()
    assert len(named) > 30


def test_every_label_of_an_expression_is_one_of_its_metrics(shown: dict[str, set[str]]) -> None:
    for text in expressions():
        known = set().union(*(shown[name] for name in metrics_in(text))) | TARGET_LABELS
        used = {
            label
            for inside in re.findall(r"\{([^{}]*)\}", text)
            for label in re.findall(r"(\w+) *(?:=~|!~|!=|=)", inside)
        }
        used |= {
            label.strip()
            for listed in re.findall(r"\bby \(([^)]*)\)", text)
            for label in listed.split(",")
        }
        assert used <= known, text


def test_every_alert_has_an_expression_a_severity_and_words_for_people() -> None:
    text = ALERTS.read_text()
    names = re.findall(r"^ +- alert: (\w+)$", text, re.MULTILINE)
    assert len(set(names)) == len(names)
    assert set(names) >= REQUIRED
    for word in ("expr", "severity", "summary", "description"):
        assert len(re.findall(rf"^ +{word}: ", text, re.MULTILINE)) == len(names), word
    assert set(re.findall(r"severity: (\w+)", text)) == {"critical", "warning", "info"}
    explained = re.findall(r"^\| ((?:[A-Z]\w+(?:, )?)+) \|", HOWTO.read_text(), re.MULTILINE)
    assert {name for names in explained for name in names.split(", ")} == set(names)


def test_the_alerts_that_matter_most_are_tested() -> None:
    tested = set(re.findall(r"alertname: (\w+)", ALERT_TESTS.read_text()))
    assert tested >= REQUIRED


def test_the_page_lists_every_metric_and_no_other(shown: dict[str, set[str]]) -> None:
    rows = re.findall(r"^\| (`parkingd_.*?) \| (.*?) \|", HOWTO.read_text(), re.MULTILINE)
    listed = {
        name: set(re.findall(r"`(\w+)`", labels))
        for names, labels in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    histograms = ("_bucket", "_sum", "_count")
    own = {
        re.sub(f"({'|'.join(histograms)})$", "", name): labels - {"le"}
        for name, labels in shown.items()
        if name.startswith("parkingd_")
    }
    assert listed == own


def test_the_page_names_every_degradation() -> None:
    section = HOWTO.read_text().split("| degraded |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == list(DEGRADATIONS)


def test_the_picture_shows_every_panel_and_no_other() -> None:
    """Drawn by tests/deploy/picture.py from a real run; drawn anew when the dashboard changes."""
    bold = r'font-weight="bold">(.*?)</text>'
    shown = [unescape(title) for title in re.findall(bold, PICTURE.read_text())]
    assert shown == [panel["title"] for panel in json.loads(DASHBOARD.read_text())["panels"]]


def test_the_dashboard_is_bound_to_no_installation() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert "id" not in dashboard
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"] == [
        "Lot",
        "Gates",
        "Members",
        "Replication",
        "Network",
        "Processes",
        "Versions",
    ]
