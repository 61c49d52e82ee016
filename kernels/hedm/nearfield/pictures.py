"""Maps as figures: confidence, grains, and orientations in the colours of an inverse pole figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kernels.hedm.nearfield.reconstruct import OrientationMap
from kernels.hedm.nearfield.writers import raster
from kernels.io.plot import Map, write_figure

_WHITE = 255
_LEAST = 400  # pixels that the shorter side of a picture has at least


def write_confidence(path: Path, made: OrientationMap) -> None:
    """Confidence and sizes of grains beside each other, as a PNG."""
    place, x, y = raster(made.voxels)
    half = 0.5 * abs(float(x[1] - x[0])) if len(x) > 1 else 0.5 * made.voxels.size_um
    wide, high = (float(x[0]) - half, float(x[-1]) + half), (float(y[0]) - half, float(y[-1]) + half)
    values = np.where(place >= 0, made.confidence[np.maximum(place, 0)], np.nan)
    counts = np.concatenate([[0], made.segments.voxels]).astype(np.float64)
    sizes = counts[made.segments.grain] * made.voxels.area_um2
    grains = np.where(
        (place >= 0) & (made.segments.grain[np.maximum(place, 0)] > 0), sizes[np.maximum(place, 0)], np.nan
    )
    panels = [
        Map("Confidence", "x (µm)", "y (µm)", values, wide, high, limits=(0.0, 1.0)),
        Map("Area of the grain (µm²)", "x (µm)", "y (µm)", grains, wide, high, log=True),
    ]
    write_figure(path, panels, columns=2)


def write_colours(path: Path, made: OrientationMap, colours: NDArray[np.uint8]) -> None:
    """Orientations in colours, shape (voxels, 3), as a PNG; y goes up, and what belongs to no grain is white."""
    place, _, _ = raster(made.voxels)
    shown = np.where(made.accepted[:, None], colours, _WHITE).astype(np.uint8)
    image = shown[np.maximum(place, 0)]
    image[place < 0] = _WHITE
    times = max(1, -(-_LEAST // min(image.shape[:2])))
    whole = Image.fromarray(np.ascontiguousarray(image[::-1].repeat(times, axis=0).repeat(times, axis=1)))
    with path.open("wb") as file:
        whole.save(file, "PNG", optimize=True)
