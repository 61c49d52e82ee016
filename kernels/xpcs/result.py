"""The result file of XPCS as APS 8-ID has it, which pyXPCSViewer opens: what was known of a measurement, the bins, and
what came out.

It begins as a copy of the measurement's `*_metadata.hdf`; under /xpcs come `qmap`, `multitau` or `twotime`,
`temporal_mean` and `spatial_mean`, where the viewer looks for them (pyxpcsviewer 1.2, `core/file_io/aps_8idi.py`; the
shapes are those of boost-corr 0.1.7). What only we write is in /xpcs/process: arguments, warnings, what was left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels import outputs
from kernels.cautions import Caution
from kernels.errors import Exit, KernelError
from kernels.io import hdf5
from kernels.io.nexus import add_process
from kernels.xpcs.analysis.scattering import Scattering
from kernels.xpcs.metadata import Metadata, write_metadata
from kernels.xpcs.multitau import MultiTau
from kernels.xpcs.qmap import Qmap, write_qmap
from kernels.xpcs.twotime.correlate import OneTime
from kernels.xpcs.twotime.multitau import MultiTau as ByDelay

ENDING = "_results.hdf"
_CHUNK, _PARTS = 512, 10
_DETECTOR, _ENERGY = "/entry/instrument/detector_1", "/entry/instrument/incident_beam/incident_energy"


@contextmanager
def new_result(part: Path, qmap: Qmap, known: Metadata, metadata: str | None) -> Iterator[h5py.File]:
    """A result file to fill at a staged part: a copy of the file `metadata`, or else what is `known`, and the bins.

    What the viewer needs and the metadata lack is put in, from what is known.
    """
    if metadata is None:
        with _opened(part, "w") as file:
            write_metadata(file, known)
    else:
        try:
            shutil.copyfile(metadata, part)
        except OSError as error:
            raise outputs.io_error(error, f"Cannot copy the metadata {metadata!r}") from error
    with _opened(part, "r+") as file:
        try:
            _complete(file, known)
            _set_frame_time(file, known.frame_time_s)
            if "xpcs" in file.keys():  # noqa: SIM118 -- `in file` follows links
                del file["xpcs"]
            xpcs = file.create_group("xpcs")
            xpcs.attrs["NX_class"] = "NXcollection"
            write_qmap(xpcs.create_group("qmap"), qmap)
        except (KeyError, ValueError, TypeError) as error:
            sentence = f"The metadata {metadata!r} cannot be completed to a result: {hdf5.reason(error)}."
            raise KernelError(sentence, Exit.BAD_INPUT) from error
        yield file


def add_scattering(file: h5py.File, scattering: Scattering) -> None:
    """Mean scattering, and the intensity of each frame with its number before it."""
    mean = file.create_group("xpcs/temporal_mean")
    mean["scattering_2d"] = scattering.image[None].astype(np.float32)
    mean["scattering_1d"] = scattering.bins[None].astype(np.float32)
    mean["scattering_1d_segments"] = scattering.segments.astype(np.float32)
    numbers = np.arange(len(scattering.intensity))
    file["xpcs/spatial_mean/intensity_vs_time"] = np.stack([numbers, scattering.intensity]).astype(np.float32)


def add_multitau(file: h5py.File, found: MultiTau, *, stride: int, average: int, config: Mapping[str, object]) -> None:
    """g2 at its delays, which are counted in frames as they were chosen: viewers multiply by stride and average."""
    group = file.create_group("xpcs/multitau")
    group["delay_list"] = found.lags.frames
    group["normalized_g2"] = found.g2
    group["normalized_g2_err"] = found.g2_err
    group["static_g2"], group["static_g2_err"] = found.partial, found.partial_err
    add_config(group, stride, average, config)


class Maps:
    """The two-time correlations in a result file, bin by bin; give `write` to `kernels.xpcs.twotime.correlate`.

    Of the triangle below the diagonal nothing is stored; it reads as 0. Tiles may come in any order.
    """

    def __init__(self, file: h5py.File, bins: NDArray[np.int64], frames: int) -> None:
        self._group = file.create_group("xpcs/twotime")
        self._group.create_group("correlation_map")
        self._frames, self._numbers = frames, bins
        self._bins: dict[int, h5py.Dataset] = {}

    def write(self, number: int, row: int, column: int, tile: NDArray[np.float32]) -> None:
        if number not in self._bins:
            chunk = (min(_CHUNK, self._frames),) * 2
            name = f"correlation_map/c2_{int(np.searchsorted(self._numbers, number)) + 1:05d}"
            shape = (self._frames, self._frames)
            self._bins[number] = self._group.create_dataset(name, shape, np.float32, chunks=chunk)
            self._bins[number].attrs["dynamic_bin"] = number
        rows, columns = tile.shape
        for at in range(0, rows, _CHUNK):
            last, skip = min(at + _CHUNK, rows), at if row == column else 0
            self._bins[number][row + at : row + last, column + skip : column + columns] = tile[at:last, skip:]

    def finish(self, found: OneTime, *, segment: int) -> None:
        """Add what the diagonals say; slices of age are `segment` frames long."""
        self._group["normalized_g2"] = found.g2.astype(np.float32)
        self._group["normalized_g2_segments"] = found.slices[:segment].astype(np.float32)
        self._group["delay_list"] = np.arange(self._frames)
        self._group["processed_bins"] = found.bins


def add_by_delay(file: h5py.File, found: ByDelay) -> None:
    """Two-time correlations by delay and time: `by_delay/d00001` (bins, times) is of the first of `delay_list`.

    The time of a column is that many times 2^level frames. Errors of g2 are from the scatter among parts of the series.
    """
    group = file.create_group("xpcs/twotime")
    group["delay_list"], group["level"], group["processed_bins"] = found.lags.frames, found.lags.level, found.bins
    group["normalized_g2"] = found.g2
    group["normalized_g2_err"] = np.stack([_error_of_mean(values) for values in found.values])
    for n, values in enumerate(found.values):
        group[f"by_delay/d{n + 1:05d}"] = values


def add_record(
    file: h5py.File,
    version: str,
    arguments: Mapping[str, object],
    left_out: Mapping[str, int],
    warnings: Iterable[Caution],
) -> None:
    """What made the result, what it leaves out (how many of what) and what is to be known before it is believed."""
    group = file["xpcs"]
    add_process(group, "Beamway", version, arguments, warnings)
    said = [f"{what}: {count}" for what, count in left_out.items()]
    group["process"].create_dataset("left_out", data=np.array(said, object), dtype=h5py.string_dtype())


def check_result(path: Path) -> None:
    """Raise `KernelError` (exit 3) when the result cannot be opened, or its g2 is not finite."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            found = [file[f"xpcs/{kind}/normalized_g2"][()] for kind in ("multitau", "twotime") if kind in file["xpcs"]]
            file["xpcs/temporal_mean/scattering_2d"][()]
    except (OSError, KeyError, RuntimeError) as error:
        raise KernelError(f"The written result {str(path)!r} is damaged.", Exit.BAD_OUTPUT) from error
    if not found or not all(np.isfinite(g2).all() for g2 in found):
        raise KernelError(f"The written result {str(path)!r} has a g2 that is not finite.", Exit.BAD_OUTPUT)


def _error_of_mean(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each row, from the means of ten parts of it; NaN where they would be of a single value."""
    length = values.shape[1] // _PARTS
    if length < 2:
        return np.full(len(values), np.nan)
    means = values[:, : _PARTS * length].reshape(len(values), _PARTS, length).mean(2, dtype=np.float64)
    return np.asarray(means.std(axis=1, ddof=1) / np.sqrt(_PARTS))


def add_config(group: h5py.Group, stride: int, average: int, config: Mapping[str, object]) -> None:
    """How frames were chosen, by the names that boost-corr has for it."""
    said = {"stride_frame": stride, "avg_frame": average, **config}
    group.update({f"config/{name}": value for name, value in said.items() if value is not None})


def _complete(file: h5py.File, known: Metadata) -> None:
    """Put in what viewers look for and these metadata do not say."""
    count_time = known.frame_time_s if known.count_time_s is None else known.count_time_s
    pixel_x, pixel_y = known.pixel_size_m or (None, None)
    for name, value in (
        (f"{_DETECTOR}/count_time", count_time),
        (f"{_DETECTOR}/x_pixel_size", pixel_x),
        (f"{_DETECTOR}/y_pixel_size", pixel_y),
        (_ENERGY, known.energy_kev),
        ("/entry/start_time", known.start_time or datetime.fromtimestamp(0, UTC).isoformat()),
    ):
        if value is not None and hdf5.found(file, name) is None:
            file[name] = value


def _set_frame_time(file: h5py.File, frame_time_s: float) -> None:
    """Make it the one that was used."""
    name = f"{_DETECTOR}/frame_time"
    there = hdf5.found(file, name)
    if there is None or float(np.ravel(there[()])[0]) != frame_time_s:
        if there is not None:
            del file[name]
        file[name] = frame_time_s
        file[name].attrs["units"] = "s"


@contextmanager
def _opened(part: Path, mode: str) -> Iterator[h5py.File]:
    try:
        with h5py.File(part, mode, locking=False) as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise outputs.io_error(OSError(str(error)), f"Cannot write {str(part)!r}") from error
