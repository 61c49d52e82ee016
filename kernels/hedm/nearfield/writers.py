"""An orientation map as a NeXus file, which silx and h5web open at the confidence, and as MIDAS's .mic text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from kernels.cautions import Caution
from kernels.errors import Exit, KernelError
from kernels.hedm.nearfield.grains import Segments
from kernels.hedm.nearfield.reconstruct import OrientationMap
from kernels.hedm.nearfield.voxels import HEXAGONS, SQUARES, TRIANGLES, Voxels
from kernels.hedm.orientations import from_bunge, to_bunge
from kernels.io.nexus import add_entry, add_process, new_file

Floats = NDArray[np.float64]

# Pixels of an image of the layer, and how far a voxel's corner is from its middle, both in sizes of the voxel.
_DRAWN = {SQUARES: (1.0, 0.71), TRIANGLES: (0.5, 0.6), HEXAGONS: (0.5, 0.58)}
_COLUMNS = (
    "OrientationRowNr", "OrientationID", "RunTime", "X", "Y", "TriEdgeSize", "UpDown", "Eul1", "Eul2", "Eul3",
    "Confidence", "PhaseNr",
)  # fmt: skip


def write_map(
    path: Path,
    made: OrientationMap,
    *,
    colours: NDArray[np.uint8] | None = None,
    parameters: Mapping[str, object] | None = None,
    warnings: Iterable[Caution] = (),
) -> None:
    """Write a map as NeXus.

    `entry/voxels` has a row per voxel; `entry/confidence` and `entry/grain` show the plane as images with pixels as
    large as a voxel; `entry/grains` has a row per grain.

    Parameters
    ----------
    colours : ndarray of uint8, shape (voxels, 3), optional
        Those of an inverse pole figure; shown as `entry/orientation`.
    """
    with new_file(path) as file:
        entry = add_entry(file, "Near-field orientation map", "confidence")
        voxels = made.voxels
        table = entry.create_group("voxels")
        table.attrs["NX_class"] = "NXcollection"
        for name, values, units in (
            ("x", voxels.places_um[:, 0], "um"),
            ("y", voxels.places_um[:, 1], "um"),
            ("up", voxels.up.astype(np.uint8), ""),
            ("orientation", made.orientations, ""),
            ("bunge", np.rad2deg(to_bunge(made.orientations)), "deg"),
            ("confidence", made.confidence, ""),
            ("expected_reflections", made.expected, ""),
            ("grain", made.segments.grain, ""),
        ):
            table.create_dataset(name, data=values, compression="gzip", compression_opts=1, shuffle=True)
            if units:
                table[name].attrs["units"] = units
        table.attrs.update({"size_um": voxels.size_um, "shape": voxels.shape, "samples": voxels.samples})
        table.attrs["margin_um"] = voxels.margin_um
        table.attrs.update({"chance": made.chance, "threshold": made.threshold, "explained": made.explained})
        place, x, y = raster(voxels)
        _image(entry, "confidence", _filled(made.confidence.astype(np.float32), place, np.float32(np.nan)), x, y)
        _image(entry, "grain", _filled(made.segments.grain.astype(np.int32), place, np.int32(-1)), x, y)
        if colours is not None:
            _image(entry, "orientation", _filled(colours, place, np.uint8(255)), x, y, colours=True)
        grains = entry.create_group("grains")
        grains.attrs["NX_class"] = "NXcollection"
        segments = made.segments
        grains["orientation"], grains["voxels"] = segments.orientations, segments.voxels
        grains["place"] = segments.places_um
        grains["place"].attrs["units"] = "um"
        sums = np.bincount(segments.grain, made.confidence, len(segments.voxels) + 1)[1:]
        grains["confidence"] = sums / np.maximum(segments.voxels, 1)
        add_process(entry, "hedm.nearfield", "1", parameters or {}, warnings)


def read_map(path: Path) -> OrientationMap:
    """A map that `write_map` has written.

    Raises
    ------
    KernelError
        Exit 65 or 66 when the file is none of its.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            table, grains = file["entry/voxels"], file["entry/grains"]
            places = np.stack([table["x"][()], table["y"][()]], axis=1)
            voxels = Voxels(
                places, float(table.attrs["size_um"]), str(table.attrs["shape"]), table["up"][()].astype(np.bool_),
                int(table.attrs["samples"]), float(table.attrs["margin_um"]),
            )  # fmt: skip
            segments = Segments(
                table["grain"][()], grains["voxels"][()], grains["orientation"][()], grains["place"][()]
            )
            return OrientationMap(
                voxels, table["orientation"][()], table["confidence"][()], table["expected_reflections"][()], segments,
                float(table.attrs["chance"]), float(table.attrs["threshold"]), float(table.attrs["explained"]),
            )  # fmt: skip
    except FileNotFoundError as error:
        raise KernelError(f"There is no file {str(path)!r}.", Exit.NO_INPUT) from error
    except (OSError, KeyError, RuntimeError) as error:
        raise KernelError(
            f"{str(path)!r} is not an orientation map of this program: {error}.", Exit.BAD_INPUT
        ) from error


def write_mic(path: Path, made: OrientationMap, *, axes: Floats | None = None, z_um: float = 0.0) -> None:
    """Write a map as MIDAS's ParseMic does: a row per triangle that has a confidence, Bunge's angles in radians.

    The file knows triangles only, whose size its readers take areas from: a hexagon is written as the six that it is
    made of, a square as one of the same area around the same middle.

    Parameters
    ----------
    axes : ndarray, shape (3, 3), optional
        `Crystal.busing_levy_rotation`, where axes of the crystal are not at right angles: MIDAS has x along a* and z
        along c.
    z_um : float
        The layer's height, told as `GlobalPosition`.
    """
    angles = to_bunge(made.orientations if axes is None else made.orientations @ axes.T)
    places, up, edge_um = _triangles(made.voxels)
    with path.open("w", encoding="ascii") as file:
        file.write(f"%TriEdgeSize {edge_um:.6f}\n%NumPhases 1\n%GlobalPosition {z_um:.6f}\n")
        file.write("%" + "\t".join(_COLUMNS) + "\n")
        for n in np.flatnonzero(made.confidence > 0):
            for place, upward in zip(places[n], up[n], strict=True):
                numbers = (
                    float(made.segments.grain[n]), made.expected[n], 0.0, *place, edge_um, 1.0 if upward else -1.0,
                    *angles[n], made.confidence[n],
                )  # fmt: skip
                file.write("\t".join(f"{number:.6f}" for number in numbers) + "\t1\n")


def _triangles(voxels: Voxels) -> tuple[Floats, NDArray[np.bool_], float]:
    """Voxels as MIDAS's triangles: middles, shape (voxels, k, 2), whether each points up (voxels, k), and the edge."""
    if voxels.shape == HEXAGONS:
        edge = voxels.size_um / math.sqrt(3)
        turns = np.deg2rad(30 + 60 * np.arange(6))
        middles = edge / math.sqrt(3) * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        up = np.tile(np.arange(6) % 2 == 0, (len(voxels.up), 1))
        return voxels.places_um[:, None] + middles, up, edge
    edge = math.sqrt(4 / math.sqrt(3) * voxels.area_um2)
    return voxels.places_um[:, None], voxels.up[:, None], edge


def read_mic(path: Path) -> tuple[Floats, Floats, Floats]:
    """Places (n, 2) in µm, orientations (n, 3, 3) in MIDAS's crystal axes, and confidences of a .mic text file."""
    try:
        rows = np.loadtxt(path, comments="%", ndmin=2)
    except FileNotFoundError as error:
        raise KernelError(f"There is no file {str(path)!r}.", Exit.NO_INPUT) from error
    except (OSError, ValueError) as error:
        raise KernelError(f"{str(path)!r} is no .mic file: {error}.", Exit.BAD_INPUT) from error
    if rows.shape[1] < 11:
        raise KernelError(f"{str(path)!r} is no .mic file: it has {rows.shape[1]} columns, not 12.", Exit.BAD_INPUT)
    return rows[:, 3:5], from_bunge(rows[:, 7:10]), rows[:, 10]


def raster(voxels: Voxels) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Which voxel each pixel of an image of the layer shows, -1 for none: (rows along y, columns along x), their x, y.

    Pixels are as large as squares, and half as large as triangles and hexagons.
    """
    step, reach = (share * voxels.size_um for share in _DRAWN[voxels.shape])
    low, high = voxels.places_um.min(axis=0), voxels.places_um.max(axis=0)
    columns, rows = (np.rint((high - low) / step).astype(int) + 1).tolist()
    x, y = low[0] + step * np.arange(columns), low[1] + step * np.arange(rows)
    plane = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    distance, index = cKDTree(voxels.places_um).query(plane, distance_upper_bound=reach)
    return np.where(np.isfinite(distance), index, -1).reshape(rows, columns).astype(np.int64), x, y


def _filled(values: NDArray[np.generic], place: NDArray[np.int64], nothing: np.generic) -> NDArray[np.generic]:
    made = values[np.maximum(place, 0)]
    made[place < 0] = nothing
    return made


def _image(
    entry: h5py.Group, name: str, values: NDArray[np.generic], x: Floats, y: Floats, *, colours: bool = False
) -> None:
    group = entry.create_group(name)
    axes = ["y", "x", "."] if colours else ["y", "x"]
    group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": axes, "title": name})
    data = group.create_dataset("data", data=values, compression="gzip", compression_opts=1, shuffle=True)
    data.attrs["interpretation"] = "rgb-image" if colours else "image"
    for axis, positions in (("x", x), ("y", y)):
        group[axis] = positions
        group[axis].attrs["units"] = "um"
