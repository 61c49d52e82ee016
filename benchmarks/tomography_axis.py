"""The rotation axis: how long the search takes, and how far it errs on scans whose axis is known.

* time: sinograms of 721 x 512 and 1501 x 2048, with noise, the axis a tenth of the width off; the first figure from one
  row as the rivals take it, the second from five rows as the kernel does. CPU seconds divided by the cores, and wall.
* error: a set of phantoms, 512 columns, five rows: noise, stripes, few angles, objects wider than the view, full turns,
  half acquisition, with the axis up to a quarter of the width (45 % in half acquisition) off the middle.
* tooth: the scan of a tooth that TomoPy is distributed with, known to be at about 295 to 296, where it is at hand.

    python benchmarks/tomography_axis.py [--quick] [--tooth FILE]

Rivals, where they can be imported: Vo's search of algotom and of TomoPy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kernels import contract  # noqa: E402
from kernels.tomography import phantom  # noqa: E402
from kernels.tomography.axis import find_axis  # noqa: E402

ROWS, COLUMNS = 5, 512
TOOTH = Path(os.environ.get("BEAMWAY_TEST_DATA", "data")) / "tomography" / "tooth.h5"
SECONDS_BAR, ERROR_BAR = 5.0, 0.25

Rival = Callable[[np.ndarray], float]


class Case(NamedTuple):
    """A scan: axis off the middle and extent of the object as fractions of the width; noise as line integrals."""

    name: str
    off: float
    angles: int = 721
    turn: float = 180.0
    noise: float = 0.02
    stripes: float = 0.0
    margin: float | None = None


CASES = (
    *(Case("noise", off, noise=0.04) for off in (0.0, 0.05, -0.15, 0.25)),
    *(Case("stripes", off, stripes=0.04) for off in (0.0, -0.05, 0.15, -0.25)),
    *(Case("noise_stripes", off, noise=0.04, stripes=0.04) for off in (0.0, 0.05, -0.15, 0.25, -0.25)),
    *(Case("few_angles", off, angles=n) for off, n in ((0.05, 120), (-0.15, 60), (0.25, 24), (-0.05, 15))),
    *(Case("wider_than_view", off, margin=0.6) for off in (0.0, 0.05, -0.15, 0.25)),
    *(Case("missing_wedge", off, angles=561, turn=140.0) for off in (0.05, -0.15)),
    *(Case("full_turn", off, angles=1440, turn=360.0, stripes=0.02) for off in (0.0, 0.15, -0.25)),
    *(Case("half_acquisition", off, 1440, 360.0, 0.02, 0.02, 0.5 + abs(off)) for off in (0.3, -0.4, 0.45)),
)


def made(case: Case, columns: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Sinograms, angles and the true axis, which is not on a pixel."""
    axis = 0.5 * (columns - 1) + round(case.off * columns) + 0.1 + 0.11 * (seed % 8)
    margin = case.margin * columns if case.margin else min(axis, columns - 1 - axis) + 0.5
    theta = np.arange(case.angles) * case.turn / case.angles
    parts = phantom.sample_object(columns, 64, margin=margin, absorption=1.5, seed=seed)
    exact = phantom.project_rows(parts, theta, columns, 64, axis, 32 - rows // 2, 32 + (rows + 1) // 2)
    random = np.random.default_rng([seed, 7])
    noisy = exact + case.noise * random.standard_normal(exact.shape)
    return (noisy + case.stripes * random.standard_normal((rows, 1, columns))).astype(np.float32), theta, axis


def rivals() -> dict[str, Rival]:
    """Those that can be imported."""
    found: dict[str, Rival] = {}
    try:
        from algotom.prep.calculation import find_center_vo
    except ImportError:
        pass
    else:
        found["algotom"] = lambda sinogram: float(find_center_vo(sinogram))
    try:
        from tomopy import find_center_vo as of_tomopy
    except ImportError:
        pass
    else:
        found["tomopy"] = lambda sinogram: float(of_tomopy(sinogram[:, None]))
    return found


def timed(work: Callable[[], Any], repeat: int) -> tuple[float, float]:
    """The least wall and CPU seconds."""
    taken = []
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        taken.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(w for w, _ in taken), min(c for _, c in taken)


def result(name: str, ours: float, rival: float | None = None, bar: float | None = None) -> None:
    against = f"rival={rival:.3g} ratio={rival / ours:.2f}" if rival is not None else "rival=absent ratio=-"
    print(f"RESULT name={name} ours={ours:.3g} {against} bar={'-' if bar is None else f'{bar:g}'}", flush=True)


def measure_time(angles: int, columns: int, repeat: int, others: dict[str, Rival]) -> None:
    sinograms, theta, _ = made(Case("time", 0.1, angles), columns, ROWS, 1)
    cores = min(2, os.cpu_count() or 1)
    find_axis(sinograms[:, :, :256], theta)  # compiles
    bar = SECONDS_BAR if columns == 2048 else None
    for rows in (1, ROWS):
        wall, cpu = timed(lambda rows=rows: find_axis(sinograms[:rows], theta), repeat)
        label = f"axis_{angles}x{columns}_{rows}_row{'s' if rows > 1 else ''}"
        theirs = {name: timed(lambda f=f: f(sinograms[0]), 1) for name, f in others.items()} if rows == 1 else {}
        if not theirs:
            result(f"{label}_cpu_s_per_{cores}_cores", cpu / cores, bar=bar)
            result(f"{label}_wall_s", wall, bar=bar)
        for name, (their_wall, their_cpu) in theirs.items():
            result(f"{label}_cpu_s_per_{cores}_cores_vs_{name}", cpu / cores, their_cpu / cores, bar)
            result(f"{label}_wall_s_vs_{name}", wall, their_wall, bar)


def measure_errors(cases: tuple[Case, ...], others: dict[str, Rival]) -> None:
    errors: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in others}
    for seed, case in enumerate(cases):
        sinograms, theta, axis = made(case, COLUMNS, ROWS, seed)
        found = find_axis(sinograms, theta)
        errors.append(abs(found.position - axis))
        print(
            f"  {case.name:17s} off {case.off:5.2f}  error {found.position - axis:7.3f}  {found.level:6s} "
            f"{found.confidence:.2f}  {found.method}",
            flush=True,
        )
        if case.turn == 180.0:
            for name, rival in others.items():
                theirs[name].append(abs(rival(sinograms[0]) - axis))
    rival = {name: max(values) for name, values in theirs.items()}
    worst_rival = min(rival.values()) if rival else None
    result(f"axis_error_px_worst_of_{len(errors)}", max(errors), worst_rival, ERROR_BAR)
    result(f"axis_error_px_median_of_{len(errors)}", statistics.median(errors), bar=ERROR_BAR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every third phantom, and no 2048 columns")
    parser.add_argument("--tooth", type=Path, default=TOOTH)
    given = parser.parse_args()
    others = rivals()
    measure_time(721, 512, 3, others)
    if not given.quick:
        measure_time(1501, 2048, 2, others)
    measure_errors(CASES[:: 3 if given.quick else 1], others)
    if given.tooth.is_file():
        found = contract.run("tomography.axis", {"input": str(given.tooth)}, say=None).metrics
        off = max(295.0 - float(found["rotation_axis"]), float(found["rotation_axis"]) - 296.0, 0.0)
        print(f"  tooth at {found['rotation_axis']} by {found['axis_method']}, confidence {found['axis_confidence']}")
        result("axis_tooth_px_outside_295_to_296", off, bar=1.0)


if __name__ == "__main__":
    main()
