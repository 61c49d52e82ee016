"""Figures of grains: maps coloured by orientation with the key of the colours, and histograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.colours import colour_key, colour_orientations
from kernels.hedm.grains import Grains
from kernels.io.plot import Curve, Discs, Map, Plot, write_figure

Floats = NDArray[np.float64]

_ACROSS = 3
_KEY = 400  # pixels along a side
_BINS = 40
_SHARE = 0.015  # of the extent: the radius of a grain whose size is not known


def draw_grains(path: Path, grains: Grains) -> None:
    """Write a PNG: the grains from above and from the side, coloured by the crystal direction along the sample's z, as
    large as they are; the key of the colours; histograms of completeness and strain.

    Where radii are not known they go by the cube root of intensity, about a radius that suits the picture.
    """
    radius, what = _radii(grains)
    order = np.argsort(-radius, kind="stable")  # small ones on top
    seen, radius = grains.take(order), radius[order]
    shades = np.zeros((len(seen), 3), np.uint8)
    keys = []
    for n, crystal in enumerate(seen.crystals):
        mine = seen.crystal == n
        shades[mine] = colour_orientations(seen.orientation[mine], crystal, (0.0, 0.0, 1.0))
        key = colour_key(crystal)
        title = f"planes across z, {crystal.name}"
        keys.append(Map(title, key.legend(crystal), "", key.image(_KEY), None, None, image=True))
    x, y, z = seen.position_um.T
    maps = [
        Discs(f"{len(seen)} grains from above{what}", "x (um)", "y (um)", x, y, radius, shades),
        Discs("from the side", "x (um)", "z (um)", x, z, radius, shades),
    ]
    names = ("11", "22", "33", "23", "13", "12")
    strains = [(f"strain {name}", grains.strain[:, n] * 1e6) for n, name in enumerate(names)]
    plots = [
        _histogram("completeness", "found of expected spots", [("", grains.completeness)]),
        _histogram("normal strain", "strain (1e-6)", strains[:3]),
        _histogram("shear strain", "strain (1e-6)", strains[3:]),
    ]
    write_figure(path, [*maps, *keys, *plots], _ACROSS)


def _radii(grains: Grains) -> tuple[Floats, str]:
    """Radii to draw, and what they are if they are no radii."""
    if np.isfinite(grains.radius_um).all():
        return grains.radius_um, ""
    extent = float(np.ptp(grains.position_um, axis=0).max())
    usual = _SHARE * (extent or 1.0)
    if not (grains.intensity > 0).all():
        return np.full(len(grains), usual), ", of no known size"
    return usual * np.cbrt(grains.intensity / np.median(grains.intensity)), ", as large as intense"


def _histogram(title: str, label: str, columns: list[tuple[str, Floats]]) -> Plot:
    """Counts of grains in equal steps over what all columns hold."""
    every = np.concatenate([values[np.isfinite(values)] for _, values in columns])
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    spare = 1e-9 + 1e-6 * abs(high)
    edges = np.linspace(low - spare, high + spare, _BINS + 1)
    curves = []
    for n, (name, values) in enumerate(columns):
        counts, _ = np.histogram(values[np.isfinite(values)], edges)
        steps = np.concatenate([[0], np.repeat(counts, 2), [0]]).astype(np.float64)
        curves.append(Curve(np.repeat(edges, 2), steps, label=name, line=True, colour=n))
    return Plot(title, label, "grains", curves)
