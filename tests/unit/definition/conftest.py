from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.definition import loader, plan, registry
from orchestrator.model import Definition, Plan

DM = Path(__file__).parent / "dm"


def workflow(stages: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": "w", "owner": "o", "stages": stages or {"01": {"command": "true"}}, **more}


def load(stages: dict[str, Any] | None = None, **more: Any) -> Definition:
    return loader.load(workflow(stages, **more))


def compiled(stages: dict[str, Any], given: dict[str, str] | None = None, **more: Any) -> Plan:
    return plan.compile_plan(load(stages, **more), given or {}, directory="/data")


def argument(kind: str = "string", required: bool = False, choices: tuple[Any, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(type=kind, required=required, choices=choices)


class Kernels:
    """A registry with one kernel."""

    def names(self) -> list[str]:
        return ["tomography.reconstruct"]

    def get(self, name: str) -> SimpleNamespace:
        arguments = {
            "input": argument("path", required=True),
            "output": argument("path", required=True),
            "axis": argument("number"),
            "algorithm": argument(choices=("gridrec", "fbp")),
        }
        return SimpleNamespace(arguments=arguments)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    known = Kernels()
    monkeypatch.setattr(registry, "kernels", lambda: known)
    return known
