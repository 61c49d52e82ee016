"""Iterative reconstruction of groups of slices, with the geometry, units and gain of `kernels.tomography.fbp`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError, nearest, printable
from kernels.tomography import fbp
from kernels.tomography.iterative.noise import noise_level
from kernels.tomography.iterative.problem import OnIteration, Problem, Reason, Rule, Watch
from kernels.tomography.iterative.projector import Projector
from kernels.tomography.iterative.solvers import Preconditioner, cgls, sart, spectral_bound
from kernels.tomography.iterative.variation import fista
from kernels.tomography.lanes import LANES

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

ALGORITHMS = ("sirt", "cgls", "os-sart", "tv", "huber")
STARTS = ("zero", "fbp")
_ITERATIONS = {"sirt": 200, "cgls": 50, "os-sart": 20, "tv": 200, "huber": 200}
# What projections of N x N voxels differ from true ones by, as a part of them and times N: 0.6 to 0.7 for the sharp
# edges of `kernels.tomography.phantom` at any N. Fitting data closer than that harms a slice as fitting noise does.
_COARSENESS = 0.6
# Groups of slices and of sinograms that each method holds, the transposed copy, data and weights included.
_IMAGES = {"sirt": 2, "cgls": 4, "os-sart": 2, "tv": 9, "huber": 9}
_SINOGRAMS = {"sirt": 3, "cgls": 4, "os-sart": 3, "tv": 3, "huber": 3}


@dataclass(frozen=True)
class Method:
    """Which method, and how far.

    Parameters
    ----------
    algorithm
        One of `ALGORITHMS`.
    iterations
        At most so many; None for as many as suit the method. One of os-sart goes through all subsets.
    tolerance
        A slice has settled when three times in a row an iteration changes its residual by no more than this part,
        or with tv and huber the slice by no more than this part over sqrt(N). None for 0.001, with tv and huber 0.01;
        0 for never.
    noise
        Standard deviation of the line integrals. sirt, cgls and os-sart stop when the residual is as small; for tv and
        huber it sets the scale of the penalty. None to estimate it for each slice, with what voxels cannot show of
        sharp edges; 0 not to stop at it.
    nonnegative
        Hold all values at 0 or above. Not for cgls.
    strength
        Of the penalty of tv and huber, in units of noise sqrt(angles): about 1 takes away noise and keeps edges.
    threshold
        For huber: slopes, in units of the slice's mean value per voxel, below which the penalty is quadratic.
    subsets, relaxation
        Subsets of os-sart (None: as many as angles in each); step of sirt and os-sart, below 2.
    start
        "zero", or "fbp" for the filtered back projection; None for zero, with tv and huber for fbp.
    """

    algorithm: str = "sirt"
    iterations: int | None = None
    tolerance: float | None = None
    noise: float | None = None
    nonnegative: bool = False
    strength: float = 1.0
    threshold: float = 0.1
    subsets: int | None = None
    relaxation: float = 1.0
    start: str | None = None

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise KernelError(
                f"There is no algorithm {printable(self.algorithm)!r}; there are {', '.join(ALGORITHMS)}."
                f"{nearest(self.algorithm, ALGORITHMS)}"
            )
        if self.start not in (None, *STARTS):
            raise KernelError(f"Cannot start from {printable(self.start)!r}; choose {' or '.join(STARTS)}.")
        if self.nonnegative and self.algorithm == "cgls":
            raise KernelError(
                "cgls cannot hold values at 0 or above. Leave nonnegative out, or choose sirt or os-sart."
            )
        for name, value, least, below in (
            ("iterations", self.iterations, 1, np.inf),
            ("tolerance", self.tolerance, 0, 1),
            ("noise", self.noise, 0, np.inf),
            ("strength", self.strength, 0, np.inf),
            ("threshold", self.threshold, 0, np.inf),
            ("subsets", self.subsets, 1, np.inf),
            ("relaxation", self.relaxation, 0.01, 2),
        ):
            if value is not None and not least <= value < below:
                raise KernelError(
                    f"{self.algorithm}: {name} is {value:g}; it has to be {least} or more"
                    f"{f' and below {below}' if below < np.inf else ''}."
                )

    @property
    def rounds(self) -> int:
        """At most so many iterations."""
        return _ITERATIONS[self.algorithm] if self.iterations is None else self.iterations

    @property
    def penalised(self) -> bool:
        return self.algorithm in ("tv", "huber")

    @property
    def settled(self) -> float:
        """The tolerance that holds."""
        usual = 0.01 if self.penalised else 1e-3
        return usual if self.tolerance is None else self.tolerance

    @property
    def begins_filtered(self) -> bool:
        return (self.start or ("fbp" if self.penalised else "zero")) == "fbp"


@dataclass(frozen=True)
class Solution:
    """Slices, and how they came about.

    Parameters
    ----------
    volume : ndarray, shape (slices, N, N), float32
        Attenuation per detector pixel.
    residuals : ndarray, shape (iterations, slices)
        Root mean square of what the line integrals and those of the slice differ by; NaN after a slice was done. For
        cgls after the iteration, for the others as met on the way to it.
    iterations, reasons, noise
        For each slice: iterations made, why they ended, the noise level that was given or estimated.
    """

    volume: Floats
    residuals: Doubles
    iterations: tuple[int, ...]
    reasons: tuple[Reason, ...]
    noise: tuple[float, ...]


class IterativeReconstructor:
    """Iterative reconstruction for one geometry; the counterpart of `fbp.Reconstructor`.

    Parameters
    ----------
    theta_deg : ndarray, shape (angles,)
        Projection angles, degrees; any, in any order.
    columns, axis, circle, scale
        As in `fbp.Reconstructor`. What lies outside the slice, or the circle, but in the beam is not accounted for.
    method
        See `Method`.
    window, padding
        Of the filtered back projection from which tv and huber begin.

    Raises
    ------
    KernelError
        Exit 2 for a method or geometry that cannot be.
    """

    def __init__(
        self,
        theta_deg: Doubles,
        columns: int,
        *,
        axis: float,
        method: Method | None = None,
        window: str = "hann",
        padding: str = "zero",
        circle: bool = True,
        scale: float = 1.0,
    ) -> None:
        self.method = method or Method()
        self.size, self.group, self.unsettled = columns, LANES, 0
        self.projector = Projector(theta_deg, columns, axis=axis, circle=circle)
        self.scale, self._theta_deg = scale, theta_deg
        self._filtered = (
            fbp.Reconstructor(theta_deg, columns, axis=axis, window=window, padding=padding, circle=circle, scale=scale)
            if self.method.begins_filtered
            else None
        )
        subsets = self.method.subsets or math.isqrt(self.projector.angles)
        if subsets > self.projector.angles:
            raise KernelError(f"os-sart: {subsets} subsets are more than the {self.projector.angles} angles.")
        self._subsets = subsets if self.method.algorithm == "os-sart" else 1
        self._preconditioner = Preconditioner(self.projector) if self.method.algorithm in ("sirt", "os-sart") else None
        self._spectral = spectral_bound(self.projector) if self.method.penalised else 0.0

    @property
    def fixed_bytes(self) -> int:
        """Memory in work besides the sinograms and the slices, with weights."""
        projector, algorithm = self.projector, self.method.algorithm
        beginning = 4 * projector.sinogram_bytes + 2 * projector.image_bytes
        if self._filtered:
            beginning += self._filtered.fixed_bytes
        sums = 4 * (projector.angles + projector.columns) * projector.columns
        held = _IMAGES[algorithm] * projector.image_bytes + _SINOGRAMS[algorithm] * projector.sinogram_bytes
        return max(beginning, held) + sums

    def slices(self, sinograms: Floats, out: Floats | None = None) -> Floats:
        """Reconstruct up to `LANES` slices: (slices, angles, columns) line integrals to (slices, N, N)."""
        made = self.solve(sinograms)
        self.unsettled += sum(reason is Reason.ITERATIONS for reason in made.reasons)
        if out is None:
            return made.volume
        out[:] = made.volume
        return out

    def solve(
        self,
        sinograms: Floats,
        *,
        weights: Floats | None = None,
        start: Floats | None = None,
        on_iteration: OnIteration | None = None,
    ) -> Solution:
        """Reconstruct up to `LANES` slices, and say how it went.

        Parameters
        ----------
        sinograms : ndarray, shape (slices, angles, columns), float32
            Line integrals.
        weights : ndarray of a shape that broadcasts to that of `sinograms`, optional
            From 0, for what is missing (whatever value stands there), to 1.
        start : ndarray, shape (slices, N, N), optional
            Where to begin, instead of where `method` says.
        on_iteration
            Called with the number of each iteration and the residuals; may raise to give up.

        Raises
        ------
        KernelError
            Exit 65 for line integrals that are not finite or do not fit the geometry; 2 for weights or a start that do
            not.
        """
        known, roots = self._checked(sinograms, weights)
        count, noise = len(known), np.zeros(LANES)
        noise[:count] = self._noise(known, roots) if self.method.noise is None else self.method.noise
        image = self._beginning(known, roots, start)
        problem = Problem(self.projector, self._lanes(known), None if roots is None else self._lanes(roots))
        rule = Rule(self.method.rounds, self.method.settled, None if self.method.penalised else noise)
        watch = Watch(rule, count, on_iteration)
        del known, roots  # their memory is wanted
        self._work(problem, image, watch, noise)
        volume = self.projector.slices_of(image, count)
        volume /= np.float32(self.scale)
        return Solution(
            volume,
            np.array(watch.residuals)[:, :count],
            tuple(int(n) for n in watch.iterations[:count]),
            tuple(watch.reasons),
            tuple(float(level) for level in noise[:count]),
        )

    def _work(self, problem: Problem, image: Floats, watch: Watch, noise: Doubles) -> None:
        method, projector = self.method, self.projector
        if method.algorithm == "cgls":
            cgls(problem, image, watch)
        elif method.penalised:
            mean = problem.measured.mean((0, 1), dtype=np.float64) / (0.25 * np.pi * projector.columns)
            fista(
                problem,
                image,
                watch,
                strength=method.strength * noise * np.sqrt(projector.angles),
                threshold=method.threshold * np.maximum(mean, 0.0) * (method.algorithm == "huber"),
                nonnegative=method.nonnegative,
                spectral=self._spectral,
            )
        elif self._preconditioner:
            sart(
                problem,
                image,
                watch,
                subsets=self._subsets,
                relaxation=method.relaxation,
                nonnegative=method.nonnegative,
                preconditioner=self._preconditioner,
            )

    def _checked(self, sinograms: Floats, weights: Floats | None) -> tuple[Floats, Floats | None]:
        """The line integrals, 0 where they are missing, and the roots of the weights."""
        shape = (self.projector.angles, self.projector.columns)
        if sinograms.ndim != 3 or sinograms.shape[1:] != shape or not 1 <= len(sinograms) <= LANES:
            raise KernelError(
                f"Iterative reconstruction takes 1 to {LANES} sinograms of {shape[0]} angles and {shape[1]} columns; "
                f"these are {' x '.join(map(str, sinograms.shape))}.",
                Exit.BAD_INPUT,
            )
        known, roots = sinograms, None
        if weights is not None:
            try:
                spread = np.broadcast_to(weights, sinograms.shape)
            except ValueError:
                raise KernelError(
                    f"Weights of {' x '.join(map(str, weights.shape))} do not fit sinograms of "
                    f"{' x '.join(map(str, sinograms.shape))}."
                ) from None
            if not (weights >= 0).all() or not (weights <= 1).all():
                raise KernelError("Weights have to be between 0, for what is missing, and 1.")
            roots = np.broadcast_to(np.sqrt(weights, dtype=np.float32), sinograms.shape)
            known = np.where(spread > 0, sinograms, np.float32(0.0))
        if not np.isfinite(known).all():
            bad = int(np.count_nonzero(~np.isfinite(known)))
            raise KernelError(
                f"{bad} line integrals are not finite. Repair them, or give them the weight 0.", Exit.BAD_INPUT
            )
        return known, roots

    def _noise(self, known: Floats, roots: Floats | None) -> list[float]:
        """The noise that each sinogram has, and what voxels cannot show of it."""
        levels = []
        for n, sinogram in enumerate(known):
            weights = None if roots is None else roots[n]
            typical = np.sqrt(np.square(sinogram).mean(dtype=np.float64))
            levels.append(float(np.hypot(noise_level(sinogram, weights), _COARSENESS / len(sinogram.T) * typical)))
        return levels

    def _lanes(self, sinograms: Floats) -> Floats:
        lanes = self.projector.sinogram()
        for lane, sinogram in enumerate(sinograms):
            lanes[:, :, lane] = sinogram
        return lanes

    def _beginning(self, known: Floats, roots: Floats | None, start: Floats | None) -> Floats:
        size = self.projector.columns
        if start is None:
            if not self._filtered:
                return self.projector.image()
            start = self._filtered.slices(known if roots is None else _bridged(known, roots, self._theta_deg))
        elif start.shape != (len(known), size, size) or not np.isfinite(start).all():
            raise KernelError(
                f"The volume to start from has to be finite and {len(known)} x {size} x {size}; "
                f"this is {' x '.join(map(str, start.shape))}."
            )
        image = self.projector.lanes_of(start)
        image *= np.float32(self.scale)
        if self.method.nonnegative:
            np.maximum(image, 0, out=image)
        return image


def _bridged(known: Floats, roots: Floats, theta_deg: Doubles) -> Floats:
    """Missing values of a projection by straight lines between those beside them, of a whole one by the nearest."""
    whole = known.copy()
    columns = np.arange(known.shape[2])
    for n in range(len(known)):
        seen = np.flatnonzero((roots[n] > 0).any(1))
        for k in np.flatnonzero((roots[n] == 0).any(1)) if len(seen) else ():
            nearest_seen = seen[np.abs(theta_deg[seen] - theta_deg[k]).argmin()]
            there = roots[n, nearest_seen] > 0
            whole[n, k] = np.where(
                roots[n, k] > 0, known[n, k], np.interp(columns, columns[there], known[n, nearest_seen, there])
            )
    return whole
