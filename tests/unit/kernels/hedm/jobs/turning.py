"""A small turning sample, simulated, for tests of the kernels that find its grains."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from scans import run

GOLD = {"lattice": "4.0782", "spaceGroup": "Fm-3m"}
SMALL = {"sampleRadius": 300, "sampleHeight": 150, "maxStrain": 0.003}


class Turned(NamedTuple):
    """Frames, their instrument and their grains; not to be changed."""

    frames: Path
    geometry: Path
    truth: Path


def simulated(folder: Path) -> Turned:
    """Eight grains of gold on 256 x 256 pixels, in 360 frames of one degree."""
    path = folder / "a.h5"
    run(
        "hedm.simulate", output=path, grains=8, rows=256, columns=256, pixelSize=800, frames=360, omegaStep=1,
        sampleRadius=300, sampleHeight=150, mosaicity=0.4, **GOLD,
    )  # fmt: skip
    return Turned(path, folder / "a_geometry.yml", folder / "a_truth.h5")
