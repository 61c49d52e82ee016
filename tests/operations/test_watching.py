"""The dashboard and the alert rules are about the figures that there are, and leave none out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.engine.tally import Tally
from orchestrator.model import FailureClass, RunStatus
from orchestrator.records import Costs
from orchestrator.service import holding
from orchestrator.service.agents import Line, View
from orchestrator.service.http.context import Context
from orchestrator.service.http.metrics import Figures
from orchestrator.settings import Settings, ensure_home
from orchestrator.store import watches
from orchestrator.store.database import Database
from orchestrator.store.watches import Watch
from tests.conftest import ROOT

PAGES = ROOT / "docs" / "operations"
Labels = dict[str, set[str]]


@pytest.fixture
def exposed(tmp_path: Path) -> dict[str, Labels]:
    """name → label → values, of a service in which a little of everything has happened"""
    ensure_home(tmp_path)
    settings = Settings(home=tmp_path)
    tally = Tally()
    for state in RunStatus:
        tally.run(state.value)
    for failure in FailureClass:
        tally.attempt(failure.value, again=True, held=True)
    tally.took("far", Costs(1.0, 1.0, 1.0, 1.0))
    tally.turns.add(1.0)
    tally.writes.add(1.0)
    view = View(0.0, 1, 1, 1, (Line("far", True, True, 1.0, 1, 1, 1.0, 1.0),))
    server: Any = SimpleNamespace(view=view, tally=tally)
    with Database(settings.database_url) as database:
        database.upgrade()
        holding.take(database, tmp_path, "")
        watches.put(database, Watch("w", "e", "/data", ""))
        registry = CollectorRegistry()
        registry.register(Figures(Context(settings, database, lambda: server)))
        text = generate_latest(registry).decode()
    found: dict[str, Labels] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def dashboard() -> list[str]:
    panels = json.loads((PAGES / "grafana.json").read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    (group,) = yaml.safe_load((PAGES / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def named(expression: str) -> Iterator[tuple[str, Labels]]:
    """(metric, label → the values it is compared with)"""
    for name, matchers in re.findall(r"(beamway_\w+)(?:\{([^}]*)\})?", expression):
        pairs = re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', matchers)
        yield name, {label: set(values.split("|")) for label, values in pairs}


def test_each_expression_names_figures_labels_and_values_that_there_are(exposed: dict[str, Labels]) -> None:
    expressions = dashboard() + [rule["expr"] for rule in rules()]
    for expression in expressions:
        for name, compared in named(expression):
            assert name in exposed, expression
            for label, values in compared.items():
                assert values <= exposed[name][label], expression
        for grouped in re.findall(r"by \(([^)]*)\)", expression):
            labels = {label for name, _ in named(expression) for label in exposed[name]}
            assert {g.strip() for g in grouped.split(",")} <= labels, expression
        assert [expression.count(c) for c in "([{"] == [expression.count(c) for c in ")]}"], expression
    assert sum(any(named(e)) for e in expressions) >= len(expressions) - 1  # one is about Prometheus's own `up`


def test_the_dashboard_shows_all_figures(exposed: dict[str, Labels]) -> None:
    def family(name: str) -> str:
        return re.sub(r"_(bucket|sum|count|created)$", "", name)

    shown = {family(name) for expression in dashboard() for name, _ in named(expression)}
    assert shown == {family(name) for name in exposed}


def test_panels_do_not_overlap() -> None:
    board = json.loads((PAGES / "grafana.json").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_each_alert_says_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"].endswith(".")
