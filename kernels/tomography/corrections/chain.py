"""Which corrections, and in which order.

By projection, on counts and then on transmission:

    zingers -> dark and flat -> distortion -> phase

Zingers first: each later step would spread a spike. Flats before distortion: they have their pattern in camera pixels.
Phase last, since it is about the picture in the sample's plane.

By sinogram:

    logarithm -> beam hardening -> stripes

Hardening is about true line integrals, and stripes are what the steps before have left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.errors import KernelError, nearest
from kernels.tomography.corrections import stripes
from kernels.tomography.corrections.distortion import Lens, undistort
from kernels.tomography.corrections.hardening import Linearisation, linearise
from kernels.tomography.corrections.outliers import FrameNoise, remove_zingers
from kernels.tomography.corrections.phase import paganin
from kernels.tomography.logarithm import minus_log

Floats = NDArray[np.float32]

STRIPES: Mapping[str, Callable[..., Floats]] = MappingProxyType(
    {
        "constant": stripes.remove_constant_stripes,
        "slow": stripes.remove_slow_stripes,
        "partial": stripes.remove_partial_stripes,
        "large": stripes.remove_large_stripes,
        "dead": stripes.remove_dead_stripes,
        "all": stripes.remove_all_stripes,
    }
)


class Zingers(NamedTuple):
    """As `remove_zingers` takes them."""

    threshold: float = 8.0
    relative: float = 0.05
    over_angles: bool = False
    dark: bool = False


class Propagation(NamedTuple):
    """As `paganin` takes it."""

    energy_kev: float
    distance_mm: float
    pixel_um: float
    delta_beta: float


@dataclass(frozen=True, slots=True)
class Chain:
    """The corrections of one scan; None leaves one out.

    Attributes
    ----------
    zingers, lens, propagation
        By projection. Whole frames are needed for the lens (or the rows that `distortion.rows_needed` says) and for
        the phase.
    hardening, stripes, stripe_arguments
        By sinogram; `stripes` is one of `STRIPES`, its arguments those of that function.
    """

    zingers: Zingers | None = None
    lens: Lens | None = None
    propagation: Propagation | None = None
    hardening: Linearisation | None = None
    stripes: str | None = None
    stripe_arguments: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stripes is not None and self.stripes not in STRIPES:
            raise KernelError(
                f"Stripe removal {self.stripes!r} is unknown; there are {', '.join(STRIPES)}."
                f"{nearest(self.stripes, STRIPES)}"
            )

    @property
    def whole_frames(self) -> bool:
        """Whether a row of the result depends on rows far away, so that the scan has to be taken by projections."""
        return self.lens is not None or self.propagation is not None


class Projections(NamedTuple):
    """Transmission (frames, rows, columns) float32, and how many values were zingers."""

    transmission: Floats
    zingers: int


class Sinograms(NamedTuple):
    """Line integrals (rows, angles, columns) float32, and how many values lay below the floor."""

    line_integrals: Floats
    floored: int


def correct_projections(
    counts: Floats, chain: Chain, *, transmission: Callable[[Floats], Floats], noise: FrameNoise | None = None
) -> Projections:
    """From counts to what the sinograms are made of.

    Parameters
    ----------
    counts : ndarray, shape (frames, rows, columns), float32
        As stored; whole frames where `chain.whole_frames`.
    chain
        What is done.
    transmission
        Dark and flat field: counts to transmission, such as one of `flats` with its fields.
    noise
        Of the counts, for slabs: see `remove_zingers`.

    Raises
    ------
    KernelError
        As the corrections do.
    """
    replaced = 0
    if chain.zingers is not None:
        counts, replaced = remove_zingers(counts, noise=noise, **chain.zingers._asdict())
    frames = transmission(counts)
    if chain.lens is not None:
        frames = undistort(frames, chain.lens)
    if chain.propagation is not None:
        frames = paganin(frames, **chain.propagation._asdict())
    return Projections(frames, replaced)


def correct_sinograms(transmission: Floats, chain: Chain, *, floor: float = 1e-4) -> Sinograms:
    """From transmission (rows, angles, columns) float32 to line integrals; the input is left as it is.

    `floor` is the least transmission. Raises a KernelError as the corrections do.
    """
    lines = transmission.copy()
    floored = int(minus_log(lines, np.float32(floor)))
    if chain.hardening is not None:
        lines = linearise(lines, chain.hardening)
    if chain.stripes is not None:
        lines = STRIPES[chain.stripes](lines, **chain.stripe_arguments)
    return Sinograms(lines, floored)
