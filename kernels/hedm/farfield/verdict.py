"""Why nothing, or little, could be indexed: which rings there are, which were expected, and what would fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.farfield.lattice import Lattice
from kernels.hedm.farfield.limits import Limits
from kernels.hedm.farfield.spots import Spots
from kernels.hedm.geometry import Flat

Floats = NDArray[np.float64]

_SCALES = np.exp(np.linspace(math.log(0.7), math.log(1.43), 1441))  # of the lattice, 0.05 % apart
_FINER = np.exp(np.linspace(-1e-3, 1e-3, 81))  # of the best of these
_NEAR = 0.02  # of the lattice: where rings are told one by one
_SURE, _TELLING = 4.0, 0.3  # deviations, and share of the largest strain, that a shift of the rings must have
_ALIKE = 0.25  # of the shift, by which that of a ring may differ from it
_FEWEST = 20  # spots of a ring
_FEW, _SAMPLE, _STEPS = 0.6, 2000, 16  # of spots on rings, spots to look at, steps of the beam centre to each side
_WORTH, _LEAST = 1.3, 0.15  # times as many spots, and share of all, that a change must explain to be mentioned


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the two thetas of the spots say.

    Attributes
    ----------
    spots, on_rings : how many spots there are, and on the rings of this lattice
    by_chance : on_rings, were the spots anywhere
    ring_two_theta : (rings,) radians, where rings are expected
    ring_spots : (rings,) how many spots lie there
    ring_excess : (rings,) how many times as many as beside the rings
    found_two_theta : (k,) radians, the middles of the strongest peaks of the histogram, ascending
    ring_found : (rings,) radians, where each ring was found; nan where it has few spots or neighbours too close
    scale : by which the lattice should grow, or the wavelength shrink, so that spots lie on rings, near their middles
    at_scale : how many spots then do
    shift, shift_sigma : how much farther out, relatively, all rings were found than expected, and how sure this is; nan
        where they do not agree on it
    centre_um : (2,) y and z by which the beam centre should move for the same; looked for where few spots lie on rings
    at_centre : how many spots then do, in proportion to a sample of them
    strain : the largest that is looked for
    """

    spots: int
    on_rings: int
    by_chance: float
    ring_two_theta: Floats
    ring_spots: NDArray[np.int64]
    ring_excess: Floats
    found_two_theta: Floats
    ring_found: Floats
    scale: float
    at_scale: int
    shift: float
    shift_sigma: float
    centre_um: tuple[float, float]
    at_centre: int
    strain: float

    @property
    def shifted(self) -> str:
        """What is to be said where all rings lie farther out, or in, by one factor; else nothing."""
        if not abs(self.shift) > max(_SURE * self.shift_sigma, _TELLING * self.strain):
            return ""
        there = np.flatnonzero(np.isfinite(self.ring_found))
        found, wanted = (
            ", ".join(f"{angle:.3f}" for angle in np.degrees(two_theta[there[:8]]))
            for two_theta in (self.ring_found, self.ring_two_theta)
        )
        rest = " The others are of another crystal, or of none." if self.at_scale < _FEW * self.spots else ""
        return (
            f"The rings that were found lie {abs(self.shift):.2%} further {'out' if self.shift > 0 else 'in'} than "
            f"expected: lattice, wavelength or distance. They are at two theta {found} degrees and were expected at "
            f"{wanted}; with a lattice {1.0 / (1.0 + self.shift):.4f} times as large {self.at_scale} of {self.spots} "
            f"spots would lie on rings, and {self.on_rings} do.{rest}"
        )

    @property
    def sentence(self) -> str:
        """What is most likely wrong."""
        found = ", ".join(f"{angle:.3f}" for angle in np.degrees(self.found_two_theta))
        wanted = ", ".join(f"{angle:.3f}" for angle in np.degrees(self.ring_two_theta[:8]))
        rings = f"Spots crowd at two theta {found or 'nowhere in particular'} degrees; rings were expected at {wanted}."
        if not self.spots:
            return "There are no spots. Look at the threshold of the peak search, and at the dark frame."
        worth = max(_WORTH * max(self.on_rings, self.by_chance), _LEAST * self.spots)
        if self.at_centre > max(worth, self.at_scale):
            y, z = self.centre_um
            return (
                f"The beam centre is likely wrong: moved by {y:+.0f} µm in y and {z:+.0f} µm in z, about "
                f"{self.at_centre} of {self.spots} spots would lie on rings, and {self.on_rings} do. {rings}"
            )
        if self.shifted and abs(self.scale - 1) < _NEAR:
            return self.shifted
        if self.at_scale > worth and abs(self.scale - 1) > 1e-3:
            return (
                f"The lattice or the wavelength is likely wrong: with a lattice {self.scale:.4f} times as large (or a "
                f"wavelength or a distance that does the same) {self.at_scale} of {self.spots} spots would lie on "
                f"rings, and {self.on_rings} do. {rings}"
            )
        if self.on_rings < 1.3 * self.by_chance:
            return (
                f"{self.on_rings} of {self.spots} spots lie on rings, as by chance: beam centre, tilts, distance or "
                f"the crystal are wrong. {rings}"
            )
        missing = np.degrees(self.ring_two_theta[self.ring_excess < 1.2])
        if len(missing) > len(self.ring_two_theta) / 2:
            return (
                f"Of the rings most hold no more spots than there are beside them (two theta "
                f"{', '.join(f'{angle:.3f}' for angle in missing[:6])} degrees): another space group, another crystal? "
                f"{rings}"
            )
        return (
            f"{self.on_rings} of {self.spots} spots lie on rings as they should. If they make no grains, look at the "
            "direction and start of omega, at how the detector is flipped, and at the sample's size in the limits. "
            f"{rings}"
        )


def judge(spots: Spots, flat: Flat, lattice: Lattice, limits: Limits) -> Verdict:
    """Compare the two thetas of spots with the rings of a lattice."""
    wavelength = float(flat.source[3])
    far = np.linalg.norm(spots.point_um, axis=1)
    two_theta = np.arccos(np.clip(spots.point_um @ flat.source[:3] / np.maximum(far, 1e-9), -1.0, 1.0))
    length = 2.0 * np.sin(0.5 * two_theta) / wavelength
    rings = np.sort(lattice.ring_length)
    near = float(np.median(far)) if len(far) else 1.0
    reach = limits.extent_um / (near * wavelength) + 0.5 * limits.strain * rings
    low, high = max(rings[0] * 0.9, 1e-9), rings[-1] * 1.05
    inside = np.sort(length[(length > 0.7 * low) & (length < 1.43 * high)])
    density = ((length > low) & (length < high)).sum() / (high - low)
    begin, end = rings - reach, np.minimum(rings + reach, np.append(rings[1:] - reach[1:], np.inf))

    def on(scale: float) -> int:
        """Spots on rings of a lattice `scale` times as large, each spot once."""
        return int((np.searchsorted(inside, end / scale) - np.searchsorted(inside, begin / scale)).clip(0).sum())

    scale = 1.0
    if len(inside):
        for scales in (_SCALES, _FINER):
            scale *= float(scales[_fit(inside, rings, reach, scale * scales).argmax()])
    places, sigma = _places(inside, rings, reach, scale)
    shift, shift_sigma = _common(places / rings - 1.0, sigma / rings)
    ring_spots = np.searchsorted(inside, rings + reach) - np.searchsorted(inside, rings - reach)
    beside = np.searchsorted(inside, rings + 2 * reach) - np.searchsorted(inside, rings - 2 * reach) - ring_spots
    centre, at_centre = (0.0, 0.0), on(1.0)
    if len(spots) and at_centre < _FEW * len(spots):
        centre, at_centre = _centre(spots.point_um, flat.source, rings, reach)
    width = np.minimum(rings + reach, np.append(rings[1:] - reach[1:], np.inf)) - (rings - reach)
    return Verdict(
        len(spots),
        on(1.0),
        float(density * np.maximum(width, 0.0).sum()),
        2.0 * np.arcsin(np.minimum(0.5 * wavelength * rings, 1.0)),
        ring_spots,
        ring_spots / np.maximum(beside, 1.0),
        _peaks(two_theta),
        2.0 * np.arcsin(np.minimum(0.5 * wavelength * places, 1.0)),
        scale,
        on(scale),
        shift,
        shift_sigma,
        centre,
        at_centre,
        limits.strain,
    )


def _fit(lengths: Floats, rings: Floats, reach: Floats, scales: Floats) -> Floats:
    """(k,): how well spots lie on the rings of lattices `scales` (k,) times as large: the sum of 1 - (off / reach)²
    over all (Epanechnikov's kernel), each counted at its nearest ring.

    Parameters
    ----------
    lengths : (n,) of the reciprocal vectors of spots, ascending
    """
    middles = 0.5 * (rings[1:] + rings[:-1])
    low, high = (
        np.maximum(rings - reach, np.append(0.0, middles)),
        np.minimum(rings + reach, np.append(middles, np.inf)),
    )
    first, beyond = (np.searchsorted(lengths, edge / scales[:, None]) for edge in (low, high))
    total, squares = (np.append(0.0, np.cumsum(each)) for each in (lengths, lengths**2))
    centre = rings / scales[:, None]
    off2 = squares[beyond] - squares[first] - 2.0 * centre * (total[beyond] - total[first])
    off2 += centre**2 * (beyond - first)
    return np.asarray((beyond - first - off2 * (scales[:, None] / reach) ** 2).sum(1))


def _places(lengths: Floats, rings: Floats, reach: Floats, scale: float) -> tuple[Floats, Floats]:
    """(rings,) twice: where each ring lies that has spots enough and no neighbour within twice its reach, and how sure
    this is; by the mean shift of the spots about it."""
    place, sigma = rings / scale, np.full(len(rings), np.nan)
    gap = np.diff(rings, prepend=-np.inf, append=np.inf)
    alone = np.minimum(gap[1:], gap[:-1]) > 2.0 * (
        reach + np.maximum(np.append(reach[1:], 0), np.append(0, reach[:-1]))
    )
    for n in range(len(rings)):
        for _ in range(20):
            first, beyond = np.searchsorted(lengths, place[n] + [-reach[n], reach[n]])
            if beyond - first < _FEWEST:
                break
            place[n] = lengths[first:beyond].mean()
            sigma[n] = lengths[first:beyond].std() / math.sqrt(beyond - first)
    told = alone & np.isfinite(sigma)
    return np.where(told, place, np.nan), np.where(told, sigma, np.nan)


def _common(shift: Floats, sigma: Floats) -> tuple[float, float]:
    """The mean shift of rings and its standard deviation; nan where there are fewer than two, or one disagrees."""
    there = np.isfinite(shift)
    if there.sum() < 2:
        return math.nan, math.nan
    weight = 1.0 / sigma[there] ** 2
    mean = float(np.average(shift[there], weights=weight))
    off = shift[there] - mean
    if (np.abs(off) > np.maximum(_ALIKE * abs(mean), _SURE * sigma[there])).any():
        return math.nan, math.nan
    return mean, float(np.sqrt(np.average(off**2, weights=weight) / there.sum() + 1.0 / weight.sum()))


def _centre(points: Floats, source: Floats, rings: Floats, reach: Floats) -> tuple[tuple[float, float], int]:
    """The shift of the beam centre in y and z with which most spots lie on rings, and how many."""
    some = points[:: max(1, len(points) // _SAMPLE)]
    far = float(np.median(np.linalg.norm(some, axis=1)))
    step = max(float(reach.min()) * float(source[3]) * far, 1e-4 * far)
    # Where rings begin and end, in turn; those that overlap are one.
    edges = np.ravel(
        np.column_stack([rings - reach, np.minimum(rings + reach, np.append(rings[1:] - reach[1:], np.inf))])
    )
    best, shift = -1, (0.0, 0.0)
    for n in sorted(
        np.ndindex(2 * _STEPS + 1, 2 * _STEPS + 1), key=lambda n: max(abs(n[0] - _STEPS), abs(n[1] - _STEPS))
    ):
        y, z = ((k - _STEPS) * step for k in n)
        moved = some - y * source[4:7] - z * source[7:10]
        cosine = moved @ source[:3] / np.linalg.norm(moved, axis=1)
        length = np.sqrt(np.maximum(2.0 - 2.0 * cosine, 0.0)) / source[3]
        on = int((np.searchsorted(edges, length) % 2).sum())
        if on > best:
            best, shift = on, (y, z)
    return shift, round(best * len(points) / len(some))


def _peaks(two_theta: Floats) -> Floats:
    """The strongest peaks of a histogram, at most eight."""
    if len(two_theta) < 10:
        return np.sort(two_theta)[:8]
    low, high = np.quantile(two_theta, [0.0, 1.0])
    counts, edges = np.histogram(two_theta, 600, (low, high + 1e-9))
    smooth = np.convolve(counts, [1, 2, 3, 2, 1], "same") / 9.0
    floor = np.median(smooth) + 4.0 * math.sqrt(np.median(smooth) + 1.0)
    top = np.flatnonzero((smooth[1:-1] >= smooth[:-2]) & (smooth[1:-1] > smooth[2:]) & (smooth[1:-1] > floor)) + 1
    strongest = top[np.argsort(-smooth[top], kind="stable")][:8]
    return np.sort(0.5 * (edges[strongest] + edges[strongest + 1]))
