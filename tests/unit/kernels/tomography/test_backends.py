"""Every backend on one scan that is known exactly, against the truth and against ours: places, gain, circle."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded_tomopy
import zarr
from numpy.typing import NDArray
from scans import run
from simulated import off

from kernels import registry
from kernels.errors import KernelError
from kernels.tomography.backends.packages import BACKENDS, PACKAGES, load, own_name
from kernels.tomography.methods import ALGORITHMS, method
from kernels.tomography.phantom import project_rows

Floats = NDArray[np.float32]

SIZE, AXIS = 48, 26.8
# Dense in one half of the turn and sparse in the other: all angles alike would draw the blobs out.
THETA = np.concatenate((np.arange(0, 90, 2.0), np.arange(90, 180, 6.0)))
BLOBS = ((1.0, -9.0, 5.0, 3.5), (0.7, 8.0, -6.5, 3.0), (0.5, 3.0, 10.0, 4.0))  # value, x, y, width


def truth() -> Floats:
    places = np.arange(SIZE) - 0.5 * (SIZE - 1)
    blobs = (a * np.exp(-((places - x) ** 2 + (places[:, None] - y) ** 2) / (2 * w * w)) for a, x, y, w in BLOBS)
    return np.asarray(sum(blobs), np.float32)


def sinograms() -> Floats:
    """Two slices, the second of twice the value."""
    t = np.deg2rad(THETA)[:, None]
    lines = np.zeros((len(THETA), SIZE))
    for a, x, y, w in BLOBS:
        at = np.arange(SIZE) - (AXIS + x * np.cos(t) + y * np.sin(t))
        lines += a * np.sqrt(2 * np.pi) * w * np.exp(-(at**2) / (2 * w * w))
    return np.stack((lines, 2 * lines)).astype(np.float32)


def made(backend: str, algorithm: str, **how: Any) -> Floats:
    asked = {"axis": AXIS, "circle": True, **how}
    return method(algorithm, THETA, SIZE, backend=backend, **asked).slices(sinograms())


def here(backend: str) -> None:
    """Skip where the package is not installed; it says which and how."""
    try:
        load(backend)
    except KernelError as missing:
        pytest.skip(missing.sentence)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomopy", recorded_tomopy)
    recorded_tomopy.calls.clear()


@pytest.fixture(params=["native", "astra", "tomopy", "stand-in"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "stand-in":
        request.getfixturevalue("stand_in")
        return "tomopy"
    if request.param != "native":
        here(request.param)
    return str(request.param)


@pytest.mark.parametrize(
    ("algorithm", "far", "apart"), [("gridrec", 0.07, 0.07), ("fbp", 0.07, 0.01), ("sirt", 0.07, 0.05)]
)
def test_all_backends_agree(backend: str, algorithm: str, far: float, apart: float) -> None:
    known, slices = truth(), made(backend, algorithm)
    assert off(slices[0], known) < far
    assert off(slices[0], made("native", algorithm)[0]) < apart
    assert (slices * known).sum((1, 2)) / np.square(known).sum() == pytest.approx([1, 2], rel=0.02)
    for _, x, y, _ in BLOBS:
        assert centroid(slices[0], x, y) == pytest.approx(centroid(known, x, y), abs=0.03)


def centroid(image: Floats, x: float, y: float) -> tuple[float, float]:
    """Of what lies within four voxels of (x, y)."""
    places = np.arange(SIZE) - 0.5 * (SIZE - 1)
    near = image * ((places - x) ** 2 + (places[:, None] - y) ** 2 < 16)
    return float((near * places).sum() / near.sum()), float((near * places[:, None]).sum() / near.sum())


def test_the_circle_and_the_scale_are_the_same(backend: str) -> None:
    ours = made("native", "fbp", scale=2) != 0
    whole, cut = (made(backend, "fbp", scale=2, circle=circle) for circle in (False, True))
    assert np.array_equal(cut != 0, ours)
    assert np.array_equal(cut[ours], whole[ours])
    assert whole[~ours].any()
    assert off(cut, made(backend, "fbp") / 2) < 1e-6


@pytest.mark.parametrize("padding", ["zero", "edge"])
@pytest.mark.parametrize("window", ["hann", "parzen"])
def test_windows_and_padding_mean_the_same(backend: str, window: str, padding: str) -> None:
    algorithm = "gridrec" if backend == "tomopy" else "fbp"
    ours, theirs = (made(name, algorithm, window=window, padding=padding)[0] for name in ("native", backend))
    assert off(theirs, ours) < 0.02


def test_a_group_does_not_change_a_slice(backend: str) -> None:
    way = method("fbp", THETA, SIZE, backend=backend, axis=AXIS, circle=True)
    both, out = sinograms(), np.full((1, SIZE, SIZE), np.nan, np.float32)
    assert way.group >= 1
    assert way.fixed_bytes > both.nbytes
    assert way.slices(both[1:], out) is out
    assert np.array_equal(out[0], way.slices(both)[1])


@pytest.mark.parametrize("algorithm", ["cgls", "sart", "sirt"])
def test_iterative_methods_of_astra(algorithm: str) -> None:
    here("astra")
    assert off(made("astra", algorithm)[0], truth()) < 0.07
    few, more = (off(made("astra", algorithm, iterations=n)[0], truth()) for n in (1, 4))
    assert more < few
    if algorithm != "cgls":
        assert made("astra", algorithm, nonnegative=True).min() == 0


def test_where_astra_can_do_it_alone_it_does_the_same() -> None:
    """A centred axis and even angles: its own filtered back projection, without any of ours."""
    here("astra")
    astra, theta = importlib.import_module("astra"), np.arange(0.0, 180.0, 3.0)
    lines = project_rows(np.array([[1.0, 5.0, -7.0, 0.0, 9.0, 6.0, 99.0, 0.4]]), theta, SIZE, 1, 0.5 * (SIZE - 1), 0, 1)
    ours = method("fbp", theta, SIZE, backend="astra", axis=0.5 * (SIZE - 1), circle=False).slices(lines)[0]
    rays, square = astra.create_proj_geom("parallel", 1.0, SIZE, np.deg2rad(-theta)), astra.create_vol_geom(SIZE, SIZE)
    config = astra.astra_dict("FBP")
    config["ProjectorId"] = astra.create_projector("strip", rays, square)
    config["ProjectionDataId"] = astra.data2d.create("-sino", rays, lines[0])
    config["ReconstructionDataId"] = made_there = astra.data2d.create("-vol", square)
    astra.algorithm.run(astra.algorithm.create(config))
    assert off(ours, astra.data2d.get(made_there)) < 1e-3
    astra.clear()


@pytest.mark.parametrize("algorithm", PACKAGES["tomopy"].algorithms)
def test_every_algorithm_of_tomopy_is_called_as_it_wants(stand_in: None, algorithm: str) -> None:
    assert off(made("tomopy", algorithm)[0], truth()) < 0.07
    call = recorded_tomopy.calls[-1]
    assert call["algorithm"] == algorithm
    assert call["ncore"] >= 1
    assert call["center"] == pytest.approx(AXIS if algorithm == "gridrec" else AXIS + 0.5)
    if algorithm in PACKAGES["tomopy"].iterative:
        assert call["num_iter"] > 1
        made("tomopy", algorithm, iterations=3)
        assert recorded_tomopy.calls[-1]["num_iter"] == 3


def test_the_stand_in_is_as_strict_as_tomopy() -> None:
    tomo, theta = np.zeros((1, 4, 8), np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="not in allowed keywords"):
        recorded_tomopy.recon(tomo, theta, sinogram_order=True, algorithm="sirt", filter_name="hann")
    with pytest.raises(ValueError, match="must be one of"):
        recorded_tomopy.recon(tomo, theta, sinogram_order=True, algorithm="cgls")
    with pytest.raises(AssertionError):
        recorded_tomopy.recon(tomo, theta, algorithm="fbp")  # angles come first there
    assert set(recorded_tomopy.ALLOWED) == set(PACKAGES["tomopy"].algorithms)
    here("tomopy")
    real = importlib.import_module("tomopy")
    assert list(inspect.signature(real.recon).parameters) == list(inspect.signature(recorded_tomopy.recon).parameters)


def test_a_refusal_of_a_package_is_a_sentence(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recorded_tomopy.ALLOWED, "sirt", [])
    with pytest.raises(KernelError, match="TomoPy refuses sirt: num_iter keyword not in allowed"):
        made("tomopy", "sirt")


@pytest.mark.parametrize("backend", PACKAGES)
def test_a_package_that_is_missing(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    package = PACKAGES[backend]
    monkeypatch.setitem(sys.modules, package.module, None)
    with pytest.raises(KernelError, match=f"needs {package.title}, and it is not installed") as caught:
        run("tomography.reconstruct", input=scan, output=tmp_path / "v.zarr", backend=backend)
    assert package.install in caught.value.sentence
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("backend", "how", "sentence"),
    [
        ("astra", {"algorithm": "huber"}, "astra has no algorithm 'huber'; it has fbp, sirt, cgls, sart"),
        ("tomopy", {"algorithm": "cgls"}, "tomopy has no algorithm 'cgls'; it has gridrec, fbp, art"),
        ("tomopy", {"algorithm": "sart"}, "Did you mean 'art'"),
        ("native", {"algorithm": "mlem"}, "no algorithm 'mlem'; there are gridrec"),
        ("astra", {"algorithm": "gridrec", "iterations": 3}, "fbp of astra is not iterative"),
        ("astra", {"algorithm": "cgls", "nonnegative": True}, "choose one of sirt, sart"),
        ("tomopy", {"algorithm": "sirt", "nonnegative": True}, "cannot hold values at 0"),
    ],
)
def test_what_a_backend_does_not_have(backend: str, how: dict[str, Any], sentence: str) -> None:
    with pytest.raises(KernelError, match=sentence) as caught:
        made(backend, **how)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("backend", PACKAGES)
def test_two_halves_are_joined_by_ours_only(backend: str) -> None:
    with pytest.raises(KernelError, match="no other backend than native"):
        method("gridrec", np.arange(0.0, 360.0), SIZE, backend=backend, axis=40, circle=True)


def test_through_the_kernel(stand_in: None, scan: Path, tmp_path: Path) -> None:
    volumes = {}
    for backend in ("native", "tomopy"):
        path = tmp_path / f"{backend}.zarr"
        result = run("tomography.reconstruct", input=scan, output=path, backend=backend, rotationAxis=50.8, binning=2)
        volumes[backend] = zarr.open_array(path / "0", mode="r")[:]
        assert result.metrics.get("backend") == {"tomopy": "TomoPy 1.15 (stand-in), gridrec"}.get(backend)
        said = json.loads((tmp_path / f"{backend}.zarr.manifest.json").read_text())
        assert said["arguments"]["backend"] == backend
    ours, theirs = (np.asarray(volume, np.float64) for volume in volumes.values())
    assert (ours * theirs).sum() / (ours * ours).sum() == pytest.approx(1, rel=0.02)
    assert np.array_equal(ours == 0, theirs == 0)


def test_no_gpu_for_a_package(stand_in: None, scan: Path, tmp_path: Path) -> None:
    how = {"backend": "tomopy", "device": "gpu", "rotationAxis": 50.8}
    with pytest.raises(KernelError, match="gridrec does not run on a GPU") as caught:
        run("tomography.reconstruct", input=scan, output=tmp_path / "v.zarr", **how)
    assert caught.value.exit_code == 2


def test_the_schema_names_what_there_is() -> None:
    choices = {name: argument.choices for name, argument in registry.get("tomography.reconstruct").arguments.items()}
    assert choices["backend"] == BACKENDS
    assert set(choices["algorithm"]) == {*ALGORITHMS, *PACKAGES["tomopy"].algorithms, *PACKAGES["astra"].algorithms}
    for backend, package in PACKAGES.items():
        assert all(own_name(backend, ours) in package.algorithms for ours in package.equals)
