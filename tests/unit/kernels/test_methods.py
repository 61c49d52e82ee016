"""Each way to reconstruct, and each way to remove stripes, through the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scans import run

from kernels import registry
from kernels.cuda.device import DEVICES
from kernels.errors import KernelError
from kernels.tomography.corrections.stripes import STRIPES
from kernels.tomography.fbp import FILTERS
from kernels.tomography.methods import ALGORITHMS


@pytest.fixture(scope="module")
def striped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("striped") / "scan.h5"
    run(
        "tomography.simulate",
        output=path,
        columns=128,
        rows=4,
        angles=181,
        flats=8,
        axisOffset=3.3,
        stripes=0.08,
        photons=60000,
    )
    return path


def error(scan: Path, folder: Path, **how: Any) -> dict[str, float]:
    run("tomography.reconstruct", input=scan, output=folder / "v.zarr", rotationAxis=66.8, **how)
    truth = scan.with_name("scan_truth.h5")
    found = run("tomography.compare", input=folder / "v.zarr", truth=truth).metrics
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_all_algorithms_agree_on_gain_and_place(striped: Path, tmp_path: Path, algorithm: str) -> None:
    found = error(striped, tmp_path, algorithm=algorithm, stripes="constant")
    assert found["gain"] == pytest.approx(1, abs=0.04)
    assert found["relative_rmse"] < 0.35


@pytest.mark.parametrize(("stripes", "left"), [("constant", 0.8), ("slow", 0.95), ("all", 0.8)])
def test_rings_go_with_the_stripes(striped: Path, tmp_path: Path, stripes: str, left: float) -> None:
    before, after = (error(striped, tmp_path, filter="hann", stripes=how) for how in ("none", stripes))
    assert after["relative_rmse"] < left * before["relative_rmse"]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"iterations": 5}, "gridrec is not iterative"),
        ({"algorithm": "fbp", "nonNegative": True}, "fbp is not iterative"),
        ({"algorithm": "cgls", "nonNegative": True}, "cgls cannot hold values at 0"),
    ],
)
def test_what_a_method_does_not_have(striped: Path, tmp_path: Path, how: dict[str, Any], sentence: str) -> None:
    with pytest.raises(KernelError, match=sentence) as caught:
        error(striped, tmp_path, **how)
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_the_schema_names_what_there_is() -> None:
    """It is told without importing anything heavy, so the names stand there again."""
    choices = {name: argument.choices for name, argument in registry.get("tomography.reconstruct").arguments.items()}
    assert choices["algorithm"][: len(ALGORITHMS)] == ALGORITHMS
    assert choices["device"] == DEVICES
    assert choices["filter"] == FILTERS
    assert choices["stripes"] == ("none", *STRIPES)
