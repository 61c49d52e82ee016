"""The corrections of projections and sinograms: CPU time of each, what it leaves of a flaw, and what it harms.

The flaws are put on exact projections of a known object with noise, so that it is known what is left of them. For each
correction and width:

* `cpu_ms`: CPU time a slice or a frame, the least of some; the bar is half of what TomoPy 1.15.2 was measured to take
  (milliseconds a slice on 2 cores; for phase retrieval CPU time), where it has been;
* `left`: what is left of the error that the flaw adds, as a share of it; above 1 it is worse than before;
* `harm`: relative change of what has no flaw; it is 0 at best.

    python benchmarks/tomography_corrections.py [--sizes 512,2048] [--repeat 3]

The rival is Algotom, where it can be imported, with its own defaults.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kernels.tomography.corrections import stripes  # noqa: E402
from kernels.tomography.corrections.distortion import Lens, undistort  # noqa: E402
from kernels.tomography.corrections.flats import drifting_transmission, dynamic_transmission, eigen_flats  # noqa: E402
from kernels.tomography.corrections.hardening import from_spectrum, linearise  # noqa: E402
from kernels.tomography.corrections.outliers import remove_zingers  # noqa: E402
from kernels.tomography.corrections.phase import paganin  # noqa: E402
from kernels.tomography.phantom import project_rows, sample_object  # noqa: E402

Array = np.ndarray[Any, np.dtype[Any]]

ANGLES = {512: 721, 1024: 1501, 2048: 1501}
NOISE = 0.01
TOMOPY_MS = {
    ("slow_stripes", 512): 24,
    ("slow_stripes", 2048): 207,
    ("constant_stripes", 512): 16,
    ("constant_stripes", 2048): 131,
    ("partial_stripes", 512): 30,
    ("partial_stripes", 2048): 425,
    ("all_stripes", 512): 196,
    ("all_stripes", 2048): 3270,
    ("phase", 2048): 2300,
}


class Case(NamedTuple):
    """One correction: `ours` and `rival` take what `flawed` and `clean` are; `pieces` slices or frames are in them."""

    name: str
    ours: Callable[[Array], Array]
    rival: Callable[[Array], Array] | None
    flawed: Array
    clean: Array
    truth: Array
    pieces: float
    plain: Callable[[Array], Array] = lambda values: values  # what there is without the correction


def off(values: Array, truth: Array) -> float:
    return float(np.sqrt(np.mean((values - truth) ** 2.0) / np.mean(truth**2.0)))


def algotom(module: str, name: str, *arguments: Any) -> Callable[[Array], Array] | None:
    """A function of Algotom applied to each slice or frame, or None where Algotom is absent."""
    try:
        function = getattr(importlib.import_module(f"algotom.prep.{module}"), name)
    except ImportError:
        return None
    return lambda stack: np.stack([function(image, *arguments) for image in stack])


def stripe_cases(size: int) -> list[Case]:
    angles, random = ANGLES[size], np.random.default_rng(0)
    parts = sample_object(size, 2, margin=0.5 * size, absorption=1.5, seed=1)
    truth = project_rows(parts, np.arange(angles) * 180 / angles, size, 2, 0.5 * (size - 1), 0, 2)
    clean = (truth + NOISE * random.standard_normal(truth.shape)).astype(np.float32)
    gains = np.where(random.random(size) < 0.3, 0.05 * random.standard_normal(size), 0)
    constant = (clean + gains).astype(np.float32)
    partial = clean.copy()
    for column in random.choice(size, size // 20, replace=False):
        first = random.integers(0, angles // 2)
        partial[:, first : first + angles // 3, column] += random.choice([-0.12, 0.12])
    large, wide = clean.copy(), size // 80
    for column in (size // 4, size // 2 + 10):
        large[:, :, column : column + wide] = 0.75 * large[:, :, column : column + wide] + 0.2
    dead = clean.copy()
    dead[:, :, size // 3 : size // 3 + 2] = 0.8
    dead[:, :, size * 3 // 5] += 0.5 * random.standard_normal(dead.shape[:2]).astype(np.float32)
    every = dead + (large - clean) + (partial - clean)
    return [
        Case(name, ours, algotom("removal", theirs), flawed, clean, truth, len(truth))
        for name, ours, theirs, flawed in (
            ("constant_stripes", stripes.remove_constant_stripes, "remove_stripe_based_regularization", constant),
            ("slow_stripes", stripes.remove_slow_stripes, "remove_stripe_based_wavelet_fft", constant),
            ("partial_stripes", stripes.remove_partial_stripes, "remove_stripe_based_sorting", partial),
            ("large_stripes", stripes.remove_large_stripes, "remove_large_stripe", large),
            ("dead_stripes", stripes.remove_dead_stripes, "remove_dead_stripe", dead),
            ("all_stripes", stripes.remove_all_stripes, "remove_all_stripe", every),
        )
    ]


def frame_cases(size: int) -> list[Case]:
    rows, frames, random = size // 4, 5, np.random.default_rng(1)
    parts = sample_object(size, rows, margin=0.5 * size, absorption=1.5, seed=1)
    lines = project_rows(parts, np.arange(frames) * 180 / ANGLES[size], size, rows, 0.5 * (size - 1), 0, rows)
    lines = np.ascontiguousarray(lines.transpose(1, 0, 2))
    truth = np.exp(-lines)
    clean = noisy(truth, random)
    pieces = frames * rows / size  # of square frames

    spotted = clean.copy()
    where = random.random(clean.shape) < 1e-3
    spotted[where] += random.uniform(0.4, 3, int(where.sum())).astype(np.float32)
    zingers = algotom("removal", "remove_zinger", 0.08)

    energies = np.linspace(15, 60, 46)
    weights, attenuation = np.exp(-(((energies - 32) / 11) ** 2)), 4.0 * (20 / energies) ** 3 + 0.15
    thickness = np.linspace(0, lines.max(), 4096)
    measured = -np.log(np.exp(-thickness[:, None] * attenuation) @ weights / weights.sum())
    hardened = np.interp(lines, thickness, measured).astype(np.float32)
    curve = from_spectrum(weights, attenuation, float(lines.max()))
    same = from_spectrum(np.ones(1), np.ones(1), float(lines.max()))
    straight = lines * float(weights @ attenuation / weights.sum())

    # what a lens does to a picture that is known everywhere
    lens = Lens(0.5 * rows, 0.48 * size, (1.0, -2e-5, 0.0))
    y, x = np.mgrid[:rows, :size].astype(np.float64)
    distance = np.hypot(y - lens.row, x - lens.column)
    belongs = distance.copy()
    for _ in range(50):
        belongs = distance / (1 - 2e-5 * belongs)
    share = np.divide(belongs, distance, out=np.ones_like(distance), where=distance > 0)
    bent, flat = (
        picture(lens.row + (y - lens.row) * s, lens.column + (x - lens.column) * s)
        for s in (share, np.ones_like(share))
    )
    theirs = algotom("correction", "unwarp_projection", lens.column, lens.row, list(lens.coefficients))
    straightforward, factor = lens._replace(coefficients=(1.0,)), pieces / frames

    return [
        Case("zingers", lambda v: remove_zingers(v).frames, zingers, spotted, clean, truth, pieces),
        Case(
            "zingers_over_angles",
            lambda v: remove_zingers(v, over_angles=True).frames,
            zingers,
            spotted,
            clean,
            truth,
            pieces,
        ),
        Case(
            "hardening",
            lambda v: linearise(v, same if v is lines else curve),
            None,
            hardened,
            lines,
            straight,
            pieces,
        ),
        Case(
            "distortion",
            lambda v: undistort(v, straightforward if v is flat else lens),
            theirs,
            bent,
            flat,
            flat,
            factor,
        ),
        phase_case(size),
        *flat_cases(truth, random, pieces),
    ]


def noisy(values: Array, random: np.random.Generator) -> Array:
    """With noise that goes with the square root of the brightness."""
    return (values + NOISE * np.sqrt(values) * random.standard_normal(values.shape)).astype(np.float32)


def picture(y: Array, x: Array) -> Array:
    return (1 + 0.4 * np.sin(0.15 * x + 0.03 * y) * np.cos(0.11 * y)).astype(np.float32)[None]


def phase_case(size: int) -> Case:
    """Balls of one material, carried to the detector by Fresnel's propagator."""
    delta_beta, wavelength_um, distance_um = 40.0, 1.239841984e-3 / 20, 60e3
    random = np.random.default_rng(2)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    total = np.zeros((size, size), np.float32)
    for _ in range(12):
        row, column, radius = *random.uniform(0.2, 0.8, 2) * size, size * random.uniform(0.05, 0.15)
        total += 2 * np.sqrt(np.maximum(radius**2 - (y - row) ** 2 - (x - column) ** 2, 0))
    f = np.fft.fftfreq(size)
    square = f[:, None] ** 2 + f**2
    lines = 0.3 * np.fft.ifft2(np.fft.fft2(total / total.max()) * np.exp(-2 * (np.pi * 1.5) ** 2 * square)).real
    wave = np.exp(-0.5 * lines * (1 + 1j * delta_beta))
    wave = np.fft.ifft2(np.fft.fft2(wave) * np.exp(-1j * np.pi * wavelength_um * distance_um * square))
    seen, contact = (np.abs(wave) ** 2).astype(np.float32)[None], np.exp(-lines).astype(np.float32)[None]

    def ours(values: Array) -> Array:
        nothing = values is contact
        return paganin(values, energy_kev=20, distance_mm=60, pixel_um=1, delta_beta=0 if nothing else delta_beta)

    return Case("phase", ours, None, seen, contact, contact, 1)


def flat_cases(truth: Array, random: np.random.Generator, pieces: float) -> list[Case]:
    _, rows, columns = truth.shape
    dark = np.full((rows, columns), 100, np.float32)

    def beam(shift: float, bend: float) -> Array:
        y, x = np.arange(rows)[:, None] - shift, np.arange(columns) - bend
        bands = 1 + 0.15 * np.sin(0.9 * y + 0.4 * np.sin(0.05 * x)) + 0.1 * np.sin(0.37 * y + 1)
        return 10000 * bands * np.exp(-(((x - 0.5 * columns) / columns) ** 2))

    def exposed(light: Array) -> Array:
        return (dark + light + np.sqrt(light) * random.standard_normal(light.shape)).astype(np.float32)

    still = np.stack([beam(0, 0)] * len(truth))
    places = random.normal(0, (0.25, 2.0), (30 + len(truth), 2))
    beams = np.stack([beam(*place) for place in places])
    known = eigen_flats(exposed(beams[:30]), dark)
    unmoved = exposed(known.mean * truth)
    progress = np.linspace(0, 1, len(truth))
    after = 0.9 * beam(0.4, 3)
    drifting = still + (after - still) * progress[:, None, None]
    ends = [(dark + end).astype(np.float32) for end in (still[0], after)]
    steady = exposed(still * truth)

    def between(values: Array) -> Array:
        return drifting_transmission(values, dark, ends[0], ends[0] if values is steady else ends[1], progress)

    return [
        Case(
            "flats_drifting",
            between,
            None,
            exposed(drifting * truth),
            steady,
            truth,
            pieces,
            lambda v: ((v - dark) / (still[0] if v is steady else 0.5 * (still[0] + after))).astype(np.float32),
        ),
        Case(
            "flats_dynamic",
            lambda v: dynamic_transmission(v, dark, known)[0],
            None,
            exposed(beams[30:] * truth),
            unmoved,
            truth,
            pieces,
            lambda v: (v - dark) / known.mean,
        ),
    ]


def measured(function: Callable[[Array], Array], case: Case, repeat: int) -> tuple[float, float, float]:
    """CPU milliseconds a piece, share of the flaw that is left, and harm."""
    function(case.flawed)
    times = []
    for _ in range(repeat):
        begun = time.process_time()
        result = function(case.flawed)
        times.append(time.process_time() - begun)
    noise = off(case.plain(case.clean), case.truth) if case.name != "hardening" else 0.0
    before = np.sqrt(max(off(case.plain(case.flawed), case.truth) ** 2 - noise**2, 1e-12))
    after = np.sqrt(max(off(result, case.truth) ** 2 - noise**2, 0))
    return 1e3 * min(times) / case.pieces, float(after / before), off(function(case.clean), case.plain(case.clean))


def report(case: Case, size: int, repeat: int) -> None:
    ours = measured(case.ours, case, repeat)
    rival = measured(case.rival, case, 1) if case.rival else None
    noise, before = (off(case.plain(values), case.truth) for values in (case.clean, case.flawed))
    print(f"{case.name} {size}: error without flaw {noise:.4f}, with it {before:.4f}", flush=True)
    known = TOMOPY_MS.get((case.name, size))
    bars = (f"{known / 2:g}" if known else "-", "1", "-")
    for n, what in enumerate(("cpu_ms", "left", "harm")):
        theirs = f"{rival[n]:.4g}" if rival else "absent"
        ratio = f"{ours[n] / rival[n]:.2f}" if rival and rival[n] else "-"
        print(
            f"RESULT name={case.name}_{size}_{what} ours={ours[n]:.4g} rival={theirs} ratio={ratio} bar={bars[n]}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="512,2048", help="detector widths, of 512, 1024 and 2048")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    for size in map(int, arguments.sizes.split(",")):
        for make in (stripe_cases, frame_cases):
            for case in make(size):
                report(case, size, arguments.repeat)


if __name__ == "__main__":
    main()
