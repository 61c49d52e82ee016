"""The qmap file: in which static and which dynamic bin a pixel is, as pySimpleMask writes and boost-corr reads it.

/qmap holds `static_roi_map` and `dynamic_roi_map` (0: in no bin; bins from 1), `mask` and `blemish` (0: does not
count). Viewers also want `static_num_pts` and `dynamic_num_pts` (steps along two axes), `*_v_list_dim0` and
`*_v_list_dim1` (their middles), `*_index_mapping` (of bin 1, 2, …: which step, as one number from 0), `map_names`,
`map_units`, `beam_center_x`, `beam_center_y` (pixels), `pixel_size`, `detector_distance` (metres) and `energy` (keV).
A result file has the same under /xpcs/qmap.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.io import hdf5
from kernels.xpcs.partition import Axis, Partition

GROUP = "/qmap"
_GEOMETRY = ("beam_center_x", "beam_center_y", "pixel_size", "detector_distance", "energy")
_KINDS = ("static", "dynamic")
_VERSION = "1.0"


@dataclass(frozen=True)
class Qmap:
    """A partition and how it came about.

    Attributes
    ----------
    partition : Partition
    mask, blemish : ndarray of bool, shape (rows, columns)
        False: the pixel does not count, as someone has decided; the pixel is broken.
    left_out : dict
        What of the file is not in the partition, by name: how many.
    empty : dict
        Of static and dynamic bins the numbers, as in the file, of those without a pixel. The others have moved up.
    """

    partition: Partition
    mask: NDArray[np.bool_]
    blemish: NDArray[np.bool_]
    left_out: dict[str, int] = field(default_factory=dict)
    empty: dict[str, tuple[int, ...]] = field(default_factory=dict)


def read_qmap(path: str, shape: tuple[int, int] | None = None, *, group: str = GROUP) -> Qmap:
    """The qmap file at `path`, for a detector of `shape`.

    Bins that hold no pixel, once masked ones are gone, are left out and the others numbered anew.

    Raises
    ------
    KernelError
        Exit 66 when the file is missing; 65 when it is no such file, of another shape than the detector, all of it is
        masked, or a static bin lies in several dynamic ones.
    """
    with hdf5.open_file(path) as file:
        maps = {kind: _bins(file, path, f"{group}/{kind}_roi_map") for kind in _KINDS}
        own = maps["static"].shape
        if maps["dynamic"].shape != own:
            raise _bad(path, f"static_roi_map is of {own} pixels and dynamic_roi_map of {maps['dynamic'].shape}")
        if shape is not None and own != shape:
            turned = " It seems to be turned by 90 degrees: transpose its maps." if own == shape[::-1] else ""
            raise _bad(path, f"it is of {own} pixels and the detector of {shape}").with_hint(turned)
        mask = read_flags(file, path, f"{group}/mask", own)
        blemish = read_flags(file, path, f"{group}/blemish", own)
        blemish = mask if blemish is None and mask is not None else blemish
        binned = (maps["static"] > 0) & (maps["dynamic"] > 0)
        mask = binned if mask is None else mask
        blemish = np.ones(own, bool) if blemish is None else blemish
        used = binned & mask & blemish
        left_out = {
            "masked pixels in a bin": int((binned & ~used).sum()),
            "pixels in a static or a dynamic bin only": int(((maps["static"] > 0) ^ (maps["dynamic"] > 0)).sum()),
        }
        if not used.any():
            raise KernelError(f"The qmap {path!r} leaves no pixel: all are masked or in no bin.", Exit.BAD_INPUT)
        bins, index, empty = {}, {}, {}
        for kind in _KINDS:
            bins[kind], left = numbered(np.where(used, maps[kind], 0))
            index[kind] = _index(file, path, f"{group}/{kind}_index_mapping", left, int(maps[kind].max()))
            there = np.zeros(int(maps[kind].max()) + 1, bool)
            there[left] = True
            empty[kind] = tuple(int(n) for n in np.flatnonzero(~there[1:]) + 1)
            left_out[f"empty {kind} bins"] = len(empty[kind])
        axes = _axes(file, path, group)
        if any(len(values) == 0 for values in index.values()):
            axes = ()
        partition = Partition(
            bins["static"],
            bins["dynamic"],
            axes,
            index["static"] if axes else np.zeros(0, np.int32),
            index["dynamic"] if axes else np.zeros(0, np.int32),
            {name: value for name in _GEOMETRY if (value := _number(file, path, f"{group}/{name}")) is not None},
        )
    return Qmap(partition, mask, blemish, {name: count for name, count in left_out.items() if count}, empty)


def lists(partition: Partition) -> dict[str, Any]:
    """Of a qmap by name what is not of single pixels: where the bins lie along the axes."""
    axes = _two_axes(partition)
    values: dict[str, Any] = {
        "map_names": [axis.name for axis in axes],
        "map_units": [axis.unit for axis in axes],
    }
    for kind, index, count in (
        ("static", partition.static_index, partition.static_bins),
        ("dynamic", partition.dynamic_index, partition.dynamic_bins),
    ):
        values[f"{kind}_index_mapping"] = index if partition.axes else np.arange(count, dtype=np.int32)
        values[f"{kind}_num_pts"] = np.array([len(getattr(axis, kind)) for axis in axes])
        for n, axis in enumerate(axes):
            values[f"{kind}_v_list_dim{n}"] = np.asarray(getattr(axis, kind), np.float64)
    return values


def _two_axes(partition: Partition) -> tuple[Axis, ...]:
    axes = partition.axes or (
        Axis(
            "bin",
            "1",
            np.arange(1.0, partition.static_bins + 1),
            np.arange(1.0, partition.dynamic_bins + 1),
        ),
    )
    return (*axes, Axis("phi", "deg", np.zeros(1), np.zeros(1)))[:2]


def write_qmap(group: h5py.Group, qmap: Qmap, *, source: str = "") -> None:
    """Fill an empty group with a qmap; of axes that a partition has not, there is one step."""
    partition = qmap.partition
    axes = _two_axes(partition)
    values: dict[str, Any] = {
        "mask": qmap.mask.astype(np.uint8),
        "blemish": qmap.blemish.astype(np.uint8),
        "static_roi_map": partition.static.astype(np.uint32),
        "dynamic_roi_map": partition.dynamic.astype(np.uint32),
        "source_file": source,
        **lists(partition),
    }
    # Viewers cannot do without a geometry: of what is not known, they get one that changes nothing.
    for name, unknown in zip(_GEOMETRY, (0.0, 0.0, 1.0, 1.0, 1.0), strict=True):
        values[name] = float(partition.geometry.get(name, unknown))
    group.attrs["known"] = [name for name in _GEOMETRY if name in partition.geometry]
    told = hashlib.sha256()
    for name in sorted(values):
        value = values[name]
        told.update(name.encode())
        told.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
        large = isinstance(value, np.ndarray) and value.size > 1024
        how = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if large else {}
        if isinstance(value, str):
            value = value.encode("utf-8", "backslashreplace").decode()
        group.create_dataset(name, data=value, **how)
    for kind in _KINDS:
        for n, axis in enumerate(axes):
            group[f"{kind}_v_list_dim{n}"].attrs.update(
                {"name": axis.name, "unit": axis.unit, "size": len(getattr(axis, kind))}
            )
    group.attrs["hash"] = told.hexdigest()
    group.attrs["version"] = _VERSION


def numbered(bins: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Bins numbered from 1 without gaps, and which number each had."""
    there = np.bincount(bins.ravel()) > 0
    there[0] = False
    return np.where(there, np.cumsum(there), 0).astype(np.int32)[bins], np.flatnonzero(there)


def _bins(file: h5py.File, path: str, name: str) -> NDArray[np.int64]:
    dataset = hdf5.found(file, name)
    rank = 3 if dataset is not None and dataset.ndim == 3 and dataset.shape[0] == 1 else 2
    values = hdf5.numbers(file, name, rank=rank)[()].reshape(dataset.shape[-2:] if dataset is not None else -1)
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise _bad(path, f"{name} holds numbers of bins that are not whole")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > values.size:
        what = f"negative numbers of bins ({low:g})" if low < 0 else f"bin {high:g}, more than there are pixels"
        raise _bad(path, f"{name} holds {what}")
    return np.asarray(values, np.int64)


def read_flags(file: h5py.File, path: str, name: str, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """A map of pixels that count, of this shape (else exit 65), or None where the file has none."""
    dataset = hdf5.found(file, name)
    if dataset is None:
        return None
    if dataset.dtype.kind == "b":
        values = dataset[()] if dataset.size == math.prod(shape) else np.zeros(0)
    else:
        values = hdf5.numbers(file, name, rank=dataset.ndim)[()]
    if values.size != math.prod(shape) or values.shape[-2:] != shape:
        raise _bad(path, f"{name} is of {dataset.shape} pixels and the detector of {shape}")
    return np.asarray(values.reshape(shape) != 0)


def _index(file: h5py.File, path: str, name: str, left: NDArray[np.int64], bins: int) -> NDArray[np.int32]:
    """Steps of the bins that are left; empty when the file does not say."""
    if hdf5.found(file, name) is None:
        return np.zeros(0, np.int32)
    steps = hdf5.numbers(file, name, rank=1, kinds="iu")[()].astype(np.int64)
    if len(steps) < bins or (steps < 0).any():
        raise _bad(path, f"{name} tells the steps of {len(steps)} bins of {bins}")
    return np.asarray(steps[left - 1], np.int32)


def _axes(file: h5py.File, path: str, group: str) -> tuple[Axis, ...]:
    names, units = _texts(file, f"{group}/map_names"), _texts(file, f"{group}/map_units")
    axes = []
    for n in range(2):
        lists = []
        for kind in _KINDS:
            name = f"{group}/{kind}_v_list_dim{n}"
            if hdf5.found(file, name) is None:
                return ()
            lists.append(np.asarray(hdf5.numbers(file, name, rank=1)[()], np.float64))
        default = ("q", "phi")[n], ("1/A", "deg")[n]
        name, unit = (names[n] if len(names) > n else default[0]), (units[n] if len(units) > n else default[1])
        axes.append(Axis(name, unit, lists[0], lists[1]))
    return tuple(axes)


def _texts(file: h5py.File, name: str) -> list[str]:
    dataset = hdf5.found(file, name)
    if dataset is None or dataset.size > 16 or h5py.check_string_dtype(dataset.dtype) is None:
        return []
    values = np.atleast_1d(dataset[()])
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]


def _number(file: h5py.File, path: str, name: str) -> float | None:
    dataset = hdf5.found(file, name)
    known = file[name.rpartition("/")[0]].attrs.get("known")
    if dataset is None or (known is not None and name.rpartition("/")[2] not in known):
        return None
    if dataset.dtype.kind not in "iuf" or dataset.size != 1:
        raise _bad(path, f"{name} is not one number")
    value = float(np.reshape(dataset[()], -1)[0])
    if not math.isfinite(value):
        raise _bad(path, f"{name} is {value:g}")
    return value


def _bad(path: str, what: str) -> KernelError:
    return KernelError(f"The qmap {path!r} is not usable: {what}.", Exit.BAD_INPUT)
