"""HEDM on a GPU beside our own on the CPU, in this run, from the same files, every number of the results compared.

    python benchmarks/hedm_gpu.py [--grains 2000 10000] [--part 1000] [--near-voxels 4] [--rounds 3]

Both are the kernels as they are called, with `device` gpu and cpu. Far field: the spots of `benchmarks/hedm.py`, over
a full turn (`--grains`), where grains come from Friedel pairs, and over 120 degrees (`--part`), where they come from
single spots. Near field: a layer of gold of 200 µm with voxels of `--near-voxels` µm, from its grains; 0 leaves it out.

Times are those of the clock, the least of the rounds, of the phase that computes: `index` of `hedm.farfield` (which
pairs, indexes and refines), `search` of `hedm.nearfield`. Reading, writing and what is made ready once (source, memory)
are not in them. `off_cpu` is how many numbers of the result differ from the CPU's; the largest difference is told.

Without a GPU, or without CuPy, it says so, and ends with 0.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/unit/kernels/hedm/farfield")]

from synthetic_grains import Sample, make  # noqa: E402

from benchmarks.xpcs import said  # noqa: E402
from kernels import contract  # noqa: E402
from kernels.compiled import threads  # noqa: E402
from kernels.hedm.conventions import hexrd  # noqa: E402
from kernels.hedm.peaks.spots import Spots  # noqa: E402
from kernels.hedm.peaks.spots_io import write_spots  # noqa: E402
from kernels.io import nexus  # noqa: E402

GOLD = {"lattice": "4.08", "spaceGroup": "Fm-3m", "rings": 5}
PART = ((-math.pi / 3, math.pi / 3),)


class Task(NamedTuple):
    """A kernel, the phase of it that computes, and its arguments without outputs and device."""

    name: str
    kernel: str
    phase: str
    arguments: Mapping[str, Any]


def far_field(folder: Path, name: str, sample: Sample) -> Task:
    """The spots of a sample and its instrument as files."""
    spots, geometry = folder / f"{name}.h5", folder / f"{name}.yml"
    hexrd.write(geometry, sample.geometry)
    ranges = np.degrees(np.array(sample.limits.omega_ranges))
    with nexus.new_file(spots) as file:
        entry = nexus.add_entry(file, "Spots of diffraction", "spots")
        write_spots(entry.create_group("spots"), _table(sample), panels=sample.geometry.names)
        entry["scan/omega_ranges"] = ranges
        entry["scan/omega_step"] = 0.25
        entry["scan/shapes"] = np.array([panel.shape for panel in sample.geometry.panels])
    limits = {"sampleRadius": 500, "sampleHeight": 100}
    return Task(name, "hedm.farfield", "index", {"input": spots, "geometry": geometry, **limits, **GOLD})


def _table(sample: Sample) -> Spots:
    spots, n = sample.spots, len(sample.spots)
    lab = spots.point_um @ sample.geometry.axis_to_lab.T
    row, column = sample.geometry.pixels(np.zeros(n, np.int64), lab)
    nothing, unknown = np.zeros(n), np.full((n, 7), np.nan)
    return Spots(
        panel=np.zeros(n, np.int16),
        row=row,
        column=column,
        frame=nothing,
        omega=spots.omega,
        intensity=spots.intensity,
        largest=spots.intensity,
        pixels=np.full(n, 9, np.int32),
        frames=np.ones(n, np.int32),
        moments=np.zeros((n, 6)),
        flags=np.zeros(n, np.uint8),
        fit=unknown,
        errors=unknown,
        chi2=nothing,
    )


def near_field(folder: Path, voxel_um: float, width_um: float) -> Task:
    """Images of a layer, their instruments, and its grains as seeds."""
    layer = {"width": width_um, "voxelSize": voxel_um, **GOLD}
    contract.run("hedm.simulate-layer", {"output": folder / "near.h5", **layer}, say=None)
    images, instruments = (
        ",".join(str(folder / f"near_{which}{suffix}") for which in ("near", "far")) for suffix in (".h5", ".yml")
    )
    given = {"input": images, "geometry": instruments, "seeds": folder / "near.h5", "threshold": 50, **layer}
    return Task(f"nearfield_{voxel_um:g}", "hedm.nearfield", "search", given)


def beside(task: Task, folder: Path, rounds: int) -> None:
    """Run it on both, and say what that took and by how much the results differ."""
    found, seconds = {}, {}
    for device in ("gpu", "cpu"):
        output = folder / f"{task.name}_{device}.nxs"
        times = []
        for _ in range(rounds + 1):  # once more than counted, since the first compiles
            output.unlink(missing_ok=True)
            made = contract.run(task.kernel, {**task.arguments, "output": output, "device": device}, say=None)
            assert made.metrics["device"] == device
            times.append(made.timings[task.phase])
        found[device], seconds[device] = arrays(output), min(times[1:])
        print(f"{task.name} by {device}: {made.metrics['grains']} grains, first {times[0]:.2f} s", flush=True)
    count, largest = differences(found["gpu"], found["cpu"])
    gpu, cpu = 1e3 * seconds["gpu"], 1e3 * seconds["cpu"]
    print(f"{task.name}: GPU {gpu:.1f} ms, {threads()} threads of CPU {cpu:.1f} ms; largest difference {largest:.2g}")
    said(f"gpu_{task.name}_ms", gpu, cpu, 0)
    print(f"RESULT name=gpu_{task.name}_off_cpu ours={count} rival=0 ratio=- bar=0", flush=True)


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of numbers in a file."""
    found: dict[str, NDArray[Any]] = {}

    def keep(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
            found[name] = np.asarray(item[()])

    with h5py.File(path) as file:
        file.visititems(keep)
    return found


def differences(made: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]) -> tuple[int, float]:
    """How many numbers differ, and the largest difference against the largest of its array."""
    assert made.keys() == wanted.keys()
    count, largest = 0, 0.0
    for name, right in wanted.items():
        if made[name].shape != right.shape:
            return max(made[name].size, right.size), math.inf
        off = ~((made[name] == right) | ((made[name] != made[name]) & (right != right)))
        if off.any():
            count += int(off.sum())
            by = np.abs(made[name][off].astype(np.float64) - right[off])
            largest = max(largest, float(by.max() / max(np.abs(right[np.isfinite(right)]).max(), 1e-300)))
    return count, largest


def main() -> int:
    from kernels.cuda.device import open_device
    from kernels.errors import KernelError

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--grains", type=int, nargs="*", default=[2000, 10000])
    options.add_argument("--part", type=int, nargs="*", default=[1000])
    options.add_argument("--near-voxels", type=float, default=4.0, help="their size, um; 0: no near field")
    options.add_argument("--near-width", type=float, default=200.0, help="of the layer, um")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    samples = {f"farfield_{n}": (n, {}) for n in chosen.grains}
    samples |= {f"farfield_part_{n}": (n, {"omega_ranges": PART}) for n in chosen.part}
    names = [*samples, *([f"nearfield_{chosen.near_voxels:g}"] if chosen.near_voxels else [])]
    try:
        cuda = open_device()
    except KernelError as error:
        print(f"There is nothing to measure on. {error.sentence}")
        for name in names:
            print(f"RESULT name=gpu_{name}_ms skipped", flush=True)
        return 0
    print(cuda.name, flush=True)
    with TemporaryDirectory(prefix="beamway-hedm-") as place:
        folder = Path(place)
        for name, (grains, how) in samples.items():
            beside(far_field(folder, name, make(grains, **how)), folder, chosen.rounds)
        if chosen.near_voxels:
            beside(near_field(folder, chosen.near_voxels, chosen.near_width), folder, chosen.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
