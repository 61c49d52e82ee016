"""The workflow of cone beams and tilted axes calls its kernels as they want to be called, and hears what they say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scans import run

from kernels import contract, registry

FILE = Path(__file__).resolve().parents[3] / "workflows" / "backprojection.py"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return ast.literal_eval(FILE.read_text())  # type: ignore[no-any-return]


def arguments(workflow: dict[str, Any], stage: str, **given: str) -> dict[str, str]:
    values = {name: argument.get("default", "") for name, argument in workflow["arguments"].items()} | given
    return {
        name: re.sub(r"\$(\w+)", lambda m: values[m[1]], value)
        for name, value in workflow["stages"][stage]["arguments"].items()
    }


@pytest.mark.parametrize("given", [{}, {"tilt": "30", "height": "12"}, {"sourceDistance": "1", "pixelSize": "5"}])
def test_what_is_given_binds(workflow: dict[str, Any], given: dict[str, str]) -> None:
    for name, stage in workflow["stages"].items():
        bound = registry.get(stage["kernel"]).bind(arguments(workflow, name, filePath="/data/scan.h5", **given))
        assert bound["input"] == "/data/scan.h5"
    assert bound["tilt"] == float(given.get("tilt", 0))
    assert bound["sourceDistance"] == (1 if "sourceDistance" in given else None)


def test_its_products_are_those_that_are_expected(workflow: dict[str, Any], scan: Path, tmp_path: Path) -> None:
    stage = workflow["stages"]["02-backproject"]
    result = run(stage["kernel"], **arguments(workflow, "02-backproject", filePath=str(scan), outputDir=str(tmp_path)))
    said = "\n".join(contract.metric_line(*item) for item in result.metrics.items())
    for expression in stage["outputVariableRegexList"]:
        assert re.search(expression, said)
    for path in stage["expect"]:
        assert Path(path.replace("$outputDir", str(tmp_path))).exists()
    with h5py.File(tmp_path / "slices.nxs") as file:
        assert np.isfinite(file["entry/horizontal/data"][...]).all()
