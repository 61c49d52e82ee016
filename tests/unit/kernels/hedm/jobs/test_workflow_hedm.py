"""The workflow of the far field calls the kernels as they want to be called, and its captures match what they say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from scans import run
from turning import GOLD, SMALL, simulated

from kernels import contract, registry

FILE = Path(__file__).resolve().parents[5] / "workflows" / "hedm_ff.py"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return ast.literal_eval(FILE.read_text())  # type: ignore[no-any-return]


def test_every_stage_calls_a_kernel_as_it_wants_to_be_called(workflow: dict[str, Any]) -> None:
    values = {name: argument.get("default", "x") for name, argument in workflow["arguments"].items()}
    for stage in workflow["stages"].values():
        names = re.findall(r"\$(\w+)", repr([stage["arguments"], stage.get("expect"), stage.get("runIf")]))
        assert set(names) <= set(workflow["arguments"])
        assert set(stage.get("after", [])) <= set(workflow["stages"])
        given = {
            name: re.sub(r"\$(\w+)", lambda m: str(values[m[1]]), value) for name, value in stage["arguments"].items()
        }
        registry.get(stage["kernel"]).bind(given)


def test_captures_find_what_the_kernels_say(workflow: dict[str, Any], tmp_path: Path) -> None:
    turned, spots = simulated(tmp_path), tmp_path / "spots.h5"
    given = {"input": spots, "geometry": turned.geometry, **GOLD, **SMALL}
    said = {
        "01-inspect": _said("hedm.inspect", input=turned.frames, geometry=turned.geometry, **GOLD),
        "02-peaks": _said("hedm.peaks", input=turned.frames, geometry=turned.geometry, output=spots),
        "03-calibrate": _said("hedm.calibrate", output=tmp_path / "g.yml", refine="shift_y", **given),
        "04-farfield": _said("hedm.farfield", output=tmp_path / "grains.nxs", **given),
    }
    for name, stage in workflow["stages"].items():
        for expression in stage["outputVariableRegexList"]:
            assert re.search(expression, said[name]), (name, expression)


def _said(kernel: str, **given: Any) -> str:
    made = run(kernel, **given)
    return "\n".join(
        [*map(contract.product_line, made.products), *(contract.metric_line(*m) for m in made.metrics.items())]
    )
