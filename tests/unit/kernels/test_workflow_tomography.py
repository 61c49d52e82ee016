"""The workflow that comes with the kernels names only what they know, and its captures match what they say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from scans import run

from kernels import contract, registry
from orchestrator.definition import expressions
from orchestrator.definition.loader import load
from orchestrator.definition.plan import compile_plan

FILE = Path(__file__).resolve().parents[3] / "workflows" / "tomography.py"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return ast.literal_eval(FILE.read_text())  # type: ignore[no-any-return]


def test_every_stage_calls_a_kernel_as_it_wants_to_be_called(workflow: dict[str, Any]) -> None:
    known = {"id", "username", "execHost", *workflow["arguments"]}
    for stage in workflow["stages"].values():
        spec = registry.get(stage["kernel"])
        assert set(stage["arguments"]) <= set(spec.arguments)
        assert all(stage["arguments"].get(a.name) for a in spec.schema if a.required)
        names = re.findall(r"\$(\w+)", repr([stage["arguments"], stage.get("expect"), stage.get("runIf")]))
        assert set(names) <= known
        assert set(stage.get("after", [])) <= set(workflow["stages"])


def test_defaults_bind(workflow: dict[str, Any]) -> None:
    values = {name: argument.get("default", "x") for name, argument in workflow["arguments"].items()}
    values["filePath"] = values["truthPath"] = "/data/scan.h5"
    values |= {"scanPath": values["filePath"], "scanTheta": ""}  # as their defaults say
    for stage in workflow["stages"].values():
        given = {
            name: re.sub(r"\$(\w+)", lambda m: str(values[m[1]]), value) for name, value in stage["arguments"].items()
        }
        registry.get(stage["kernel"]).bind(given)


def test_captures_find_what_the_kernels_say(workflow: dict[str, Any], scan: Path, tmp_path: Path) -> None:
    volume, truth, clean = tmp_path / "v.zarr", scan.with_name("scan_truth.h5"), tmp_path / "a clean scan.h5"
    results = {
        "01-inspect": run("tomography.inspect", input=scan),
        "02-correct": run("tomography.correct", input=scan, output=clean, angles="0:180"),
        "03-axis": run("tomography.axis", input=scan),
        "05-reconstruct": run("tomography.reconstruct", input=scan, output=volume, rotationAxis=50.8),
        "06-compare": run("tomography.compare", input=volume, truth=truth, rotationAxis=50.8),
    }
    captured = {}
    for name, stage in workflow["stages"].items():
        for expression in stage.get("outputVariableRegexList", []):
            result = results[name]
            said = [contract.metric_line(*item) for item in result.metrics.items()]
            said += [contract.product_line(product) for product in result.products]
            found = re.search(expression, "\n".join(said))
            assert found, (name, expression)
            captured |= found.groupdict()
    assert captured["scanPath"] == str(clean)
    assert captured["scanTheta"] == ""  # the corrected scan has its own


@pytest.mark.parametrize(
    "ask", [{"zingers": "8"}, {"flatFields": "drifting"}, {"beam": "air"}, {"lens": "3,40,1"}, {"energy": "20"}]
)
def test_a_correction_is_made_only_where_one_is_asked_for(ask: dict[str, str]) -> None:
    planned = compile_plan(load(FILE), {"filePath": "/d/s.h5"}, directory="/d")
    correct = next(stage for stage in planned.stages if stage.name == "02-correct")
    condition = expressions.parse(correct.run_if)
    assert not condition.evaluate(planned.variables)
    assert condition.evaluate({**planned.variables, **ask})
    assert planned.variables["scanPath"] == "/d/s.h5"


def test_all_that_follows_reads_the_corrected_scan(workflow: dict[str, Any]) -> None:
    planned = compile_plan(load(FILE), {"filePath": "/d/s.h5"}, directory="/d")
    after = {stage.name: stage.after for stage in planned.stages}
    for name in ("03-axis", "04-preview", "05-reconstruct"):
        assert workflow["stages"][name]["arguments"]["input"] == "$scanPath"
        assert workflow["stages"][name]["inputs"] == ["$scanPath"]
        assert "02-correct" in after[name]
    assert "04-preview" not in after["05-reconstruct"]  # side by side


def test_the_workflow_offers_what_the_kernels_do(workflow: dict[str, Any]) -> None:
    kernels = ("tomography.correct", "tomography.reconstruct")
    known = {name: argument for kernel in kernels for name, argument in registry.get(kernel).arguments.items()}
    for name, argument in workflow["arguments"].items():
        if name in known and argument.get("choices"):
            assert tuple(argument["choices"]) == tuple(str(c) for c in known[name].choices), name
            assert str(known[name].default) == argument["default"]
