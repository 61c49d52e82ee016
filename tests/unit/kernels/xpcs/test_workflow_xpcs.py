"""The workflow of XPCS calls the kernels as they want to be called, and its captures match what they say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from scans import run
from series import Measured

from kernels import contract, registry

FILE = Path(__file__).resolve().parents[4] / "workflows" / "xpcs.py"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return ast.literal_eval(FILE.read_text())  # type: ignore[no-any-return]


def test_every_stage_calls_a_kernel_as_it_wants_to_be_called(workflow: dict[str, Any]) -> None:
    values = {name: argument.get("default", "x") for name, argument in workflow["arguments"].items()}
    values["filePath"] = values["qmapPath"] = "/data/a.h5"
    for stage in workflow["stages"].values():
        names = re.findall(r"\$(\w+)", repr([stage["arguments"], stage.get("expect"), stage.get("runIf")]))
        assert set(names) <= set(workflow["arguments"])
        assert set(stage.get("after", [])) <= set(workflow["stages"])
        given = {
            name: re.sub(r"\$(\w+)", lambda m: str(values[m[1]]), value) for name, value in stage["arguments"].items()
        }
        registry.get(stage["kernel"]).bind(given)


def test_captures_find_what_the_kernels_say(workflow: dict[str, Any], measured: Measured, tmp_path: Path) -> None:
    given = {"input": measured.frames, "qmap": measured.qmap}
    multitau, twotime = tmp_path / "a_results.hdf", tmp_path / "b_results.hdf"
    made = run("xpcs.qmap", input=measured.frames, output=tmp_path / "q.hdf", staticQ=4, dynamicQ=2)
    said = {
        "01-qmap": "\n".join(map(contract.product_line, made.products)),
        "02-inspect": _metrics("xpcs.inspect", **given),
        "03-multitau": _metrics("xpcs.multitau", output=multitau, **given),
        "04-twotime": _metrics("xpcs.twotime", output=twotime, bins="2", **given),
        "05-fit": _metrics("xpcs.fit", input=multitau, output=tmp_path / "fit.nxs"),
        "06-fit-twotime": _metrics("xpcs.fit", input=twotime, output=tmp_path / "fit.nxs"),
    }
    assert said["01-qmap"] == f"product {tmp_path / 'q.hdf'}"
    for name, stage in workflow["stages"].items():
        for expression in stage["outputVariableRegexList"]:
            assert re.search(expression, said[name]), (name, expression)


def _metrics(kernel: str, **given: Any) -> str:
    return "\n".join(contract.metric_line(*item) for item in run(kernel, **given).metrics.items())
