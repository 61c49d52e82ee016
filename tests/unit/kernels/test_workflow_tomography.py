"""The workflow that comes with the kernels names only what they know, and its captures match what they say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from scans import run

from kernels import contract, registry

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
    for stage in workflow["stages"].values():
        given = {
            name: re.sub(r"\$(\w+)", lambda m: str(values[m[1]]), value) for name, value in stage["arguments"].items()
        }
        registry.get(stage["kernel"]).bind(given)


def test_captures_find_what_the_kernels_say(workflow: dict[str, Any], scan: Path, tmp_path: Path) -> None:
    volume, truth = tmp_path / "v.zarr", scan.with_name("scan_truth.h5")
    metrics = {
        "01-inspect": run("tomography.inspect", input=scan).metrics,
        "02-axis": run("tomography.axis", input=scan).metrics,
        "03-reconstruct": run("tomography.reconstruct", input=scan, output=volume, rotationAxis=50.8).metrics,
        "04-compare": run("tomography.compare", input=volume, truth=truth, rotationAxis=50.8).metrics,
    }
    for name, stage in workflow["stages"].items():
        said = "\n".join(contract.metric_line(*item) for item in metrics[name].items())
        for expression in stage["outputVariableRegexList"]:
            assert re.search(expression, said), (name, expression)
