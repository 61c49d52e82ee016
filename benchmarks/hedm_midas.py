"""Far field beside midas-suite: index and refine the same spots, CPU seconds of all processes.

    python -m venv V && V/bin/pip install torch
    CMAKE_ARGS=-DCMAKE_CUDA_COMPILER=NOTFOUND V/bin/pip install midas-suite==0.12.0 numba parsl h5py gemmi
    PYTHONPATH=. V/bin/python benchmarks/hedm_midas.py [--grains 100 500]

Spots as in `hedm_ff.py`. MIDAS runs by `kernels.hedm.backends.midas`; its seconds are those of its programs, less those
of a run for a single grain, so that importing and compiling are not counted. Ours are the least of three.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/unit/kernels/hedm/farfield")]

from synthetic_grains import Sample, Score, compare, make  # noqa: E402

from kernels.hedm.backends.midas import midas  # noqa: E402
from kernels.hedm.backends.task import Task, judged  # noqa: E402
from kernels.hedm.crystals import Crystal  # noqa: E402
from kernels.hedm.farfield.find import find_grains  # noqa: E402
from kernels.hedm.reflections import list_reflections  # noqa: E402


def rival(sample: Sample) -> tuple[Score, float]:
    """How good MIDAS's grains are, and CPU seconds of its programs."""
    crystal = Crystal.of([4.08] * 3 + [90.0] * 3, "Fm-3m")
    reflections = list_reflections(crystal, sample.geometry.wavelength_A, rings=5)
    with tempfile.TemporaryDirectory() as folder:
        task = Task(
            sample.spots,
            sample.geometry,
            reflections,
            sample.limits,
            Path(folder) / "midas",
            lambda phase, grains: None,
        )
        begun = children_s()
        answer = midas(task)
        spent = children_s() - begun
    return compare(judged(task, answer), sample), spent


def children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ours(sample: Sample) -> tuple[Score, float]:
    least = float("inf")
    for _ in range(3):
        begun = time.process_time()
        found = find_grains(sample.spots, sample.geometry, sample.lattice, limits=sample.limits)
        least = min(least, time.process_time() - begun)
    return compare(found, sample), least


def told(title: str, grains: int, score: Score, spent: float) -> float:
    print(
        f"{title}, {grains} grains: {score.found} found, {score.false} false; medians {score.orientation_deg:.4f}°, "
        f"{score.position_um:.2f} µm, strain {score.strain:.2e}; {spent:.2f} CPU s",
        flush=True,
    )
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grains", type=int, nargs="*", default=[100, 500])
    given = parser.parse_args()
    small = make(1, seed=9)
    ours(small)
    starting = rival(small)[1]
    print(f"Starting MIDAS's programs: {starting:.1f} CPU s")
    for grains in given.grains:
        sample = make(grains)
        own = told("ours", grains, *ours(sample))
        theirs = told("MIDAS", grains, *rival(sample)) - starting
        ratio = f"ratio={theirs / own:.0f} bar=100"
        print(f"RESULT name=farfield-{grains}-midas-cpu-s ours={own:.3f} rival={theirs:.1f} {ratio}")


if __name__ == "__main__":
    main()
