"""Frames in HDF5 and NeXus, [frame, row, column], in any filter that hdf5plugin knows.

A frame that is one chunk, packed by bitshuffle with LZ4, is read straight from where it lies in the file and looked at
in compiled code, all cores at once (see `packed`). Everything else goes by HDF5's own way, read ahead by a thread.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.hedm.frames import scan
from kernels.hedm.frames.packed import Damaged, PackedScan, elements_of_block
from kernels.hedm.frames.source import (
    BLOCK_BYTES,
    Buffers,
    Doubles,
    Limits,
    Seen,
    bad,
    frames_at_once,
    held_as,
    plausible,
)
from kernels.io import hdf5
from kernels.outputs import io_error

# Where frames, omegas and masks are looked for when the caller does not say: NeXus, Data Exchange, HEXRD's imageseries.
DATA = ("/entry/data/data", "/exchange/data", "/imageseries/images", "/entry/instrument/detector/data")
OMEGA = (
    "/entry/sample/goniometer/omega",
    "/entry/sample/transformations/omega",
    "/entry/data/omega",
    "/exchange/omega",
    "/imageseries/omega",
)
MASK = ("/entry/instrument/detector/pixel_mask", "/entry/instrument/detector/detectorSpecific/pixel_mask")
_BITSHUFFLE, _LZ4 = 32008, 2
_PACKED_AT_ONCE = 16


class _Chunks(NamedTuple):
    """Where in the file each frame lies, and how many elements a packed block has."""

    at: NDArray[np.int64]
    size: NDArray[np.int64]
    each: int


class Hdf5Source:
    """The frames of an HDF5 file (see `Source`).

    Parameters
    ----------
    path : str
    data, omega : str, optional
        Paths in the file of the frames and of the omegas in degrees; not given: the first that is there of the usual
        ones. Omegas are (count,), where frames begin, (count + 1,), their edges, or (count, 2); `omega_end` beside
        them is taken for their ends.

    Raises
    ------
    KernelError
        Exit 65 and 66 as `kernels.io.hdf5`; 65 for frames that were not written.
    """

    def __init__(self, path: str, *, data: str | None = None, omega: str | None = None) -> None:
        self.path = self.name = path
        with hdf5.open_file(path) as file:
            self._data = data or _first(file, DATA, "frames", "data")
            dataset = hdf5.numbers(file, self._data, rank=3)
            self.count, self.rows, self.columns = (int(n) for n in dataset.shape)
            plausible(path, self.count, self.rows, self.columns)
            self.kind = held_as(dataset.dtype)
            self._check_written(dataset)
            self.omega_deg = self._omegas(file, omega)
            self.masked = self._mask(file)
            self._chunks = self._straight(dataset, file.userblock_size)
            self.at_once, self.deep = frames_at_once(self.rows, self.columns, self.kind), 1
            if self._chunks:
                largest = int(self._chunks.size.max())
                self.at_once = max(1, min(_PACKED_AT_ONCE, BLOCK_BYTES // max(1, largest)))
            elif dataset.chunks is not None and 1 < dataset.chunks[0] <= 4 * self.at_once:
                self.deep = dataset.chunks[0]
                self.at_once = max(1, self.at_once // self.deep) * self.deep  # unpacked once
        self._room, self._buffers = scan.Room(), Buffers()
        self._packed_scan: PackedScan | None = None
        if self._chunks:
            self._packed_scan = PackedScan(self.rows * self.columns, self.kind.itemsize, self._chunks.each)

    @property
    def straight(self) -> bool:
        """Whether frames are read past HDF5."""
        return self._chunks is not None

    @property
    def held(self) -> str:
        return "packed" if self.straight else "frames"

    def frames(self, first: int, beyond: int) -> NDArray[Any]:
        made = np.empty((beyond - first, self.rows, self.columns), self.kind)
        self.fill(first, beyond, made)
        return made

    def fill(self, first: int, beyond: int, into: NDArray[Any]) -> None:
        try:
            with hdf5.open_file(self.path) as file:
                dataset = file[self._data]
                if dataset.dtype == self.kind:
                    dataset.read_direct(into, np.s_[first:beyond])
                else:
                    np.copyto(into, dataset[first:beyond], casting="unsafe")
        except (OSError, RuntimeError) as error:
            failure = io_error(OSError(*error.args), f"Cannot read the frames {self.path!r}", Exit.BAD_INPUT)
            if failure.exit_code != Exit.BAD_INPUT:
                raise failure from error
            some = f"frames {first} to {beyond - 1}" if beyond - first > 1 else f"frame {first}"
            raise bad(self.path, f"{some} of {self._data} cannot be read ({hdf5.reason(error)}).") from error

    def read(self, first: int, beyond: int) -> Any:
        if self._chunks is None:
            return self.frames(first, beyond)
        at, size = self._chunks.at[first:beyond], self._chunks.size[first:beyond]
        starts = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        packed = self._buffers.next(int(starts[-1]) + 16)
        breaks = np.flatnonzero(at[1:] != at[:-1] + size[:-1]) + 1  # what lies together is read together
        with open(self.path, "rb") as raw:
            for begin, end in zip([0, *breaks], [*breaks, len(at)], strict=True):
                self._fill(raw.fileno(), packed[starts[begin] : starts[end]].data, int(at[begin]))
        return first, packed, starts

    def look(self, block: Any, limits: Limits, above: NDArray[Any]) -> Seen:
        if self._packed_scan is None:
            return scan.look(block, limits, above, self._room)
        first, packed, starts = block
        try:
            return self._packed_scan.look(packed, starts, limits, above)
        except Damaged as error:
            what = f"frame {first + error.frame} of {self._data} is damaged: it cannot be unpacked."
            raise bad(self.path, what) from error

    def _fill(self, descriptor: int, into: memoryview, at: int) -> None:
        done = 0
        while done < len(into):
            try:
                got = os.preadv(descriptor, [into[done:]], at + done)
            except OSError as error:
                raise io_error(error, f"Cannot read the frames {self.path!r}") from error
            if not got:
                raise bad(self.path, "the file has become shorter while it was read.")
            done += got

    def _check_written(self, dataset: h5py.Dataset) -> None:
        """Refuse frames whose chunks are not there: HDF5 itself would give zeros for them."""
        if dataset.chunks is None or dataset.is_virtual:
            return
        wanted = [-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
        if int(dataset.id.get_num_chunks()) == int(np.prod(wanted)):
            return
        found = np.zeros(wanted[0], np.int64)

        def note(chunk: Any) -> None:
            found[chunk.chunk_offset[0] // dataset.chunks[0]] += 1

        dataset.id.chunk_iter(note)
        there = np.repeat(found == wanted[1] * wanted[2], dataset.chunks[0])[: self.count]
        missing = np.flatnonzero(~there)
        lost = int(missing[0])
        hint = f" Its writer did not finish; choose the first {lost} frames, written as a file, or copy it again."
        raise bad(self.path, f"{len(missing)} of {self.count} frames were not written, from frame {lost} on.{hint}")

    def _omegas(self, file: h5py.File, path: str | None) -> Doubles | None:
        found = path or next((name for name in OMEGA if hdf5.found(file, name) is not None), None)
        if found is None:
            return None
        dataset = hdf5.found(file, found)
        rank = 2 if dataset is not None and dataset.ndim == 2 else 1
        dataset = hdf5.numbers(file, found, rank=rank)
        units = dataset.attrs.get("units", "")
        units = units.decode("ascii", "replace") if isinstance(units, bytes) else str(units)
        values = np.asarray(dataset[()], np.float64)
        if rank == 1:
            ends = hdf5.found(file, f"{found}_end")
            if ends is not None and ends.shape == values.shape:
                values = np.stack([values, np.asarray(ends[()], np.float64)], axis=1)
        return np.rad2deg(values) if units.lower().startswith("rad") else values

    def _mask(self, file: h5py.File) -> NDArray[np.bool_] | None:
        for name in MASK:
            dataset = hdf5.found(file, name)
            if dataset is not None and dataset.shape == (self.rows, self.columns) and dataset.dtype.kind in "iub":
                return np.asarray(dataset[()] != 0)
        return None

    def _straight(self, dataset: h5py.Dataset, userblock: int) -> _Chunks | None:
        """Where the frames lie, when each is a chunk of its own as `packed` reads it, or None."""
        how = dataset.id.get_create_plist()
        if dataset.chunks != (1, self.rows, self.columns) or how.get_nfilters() != 1 or userblock:
            return None
        code, _, values, _ = how.get_filter(0)
        kind, width = dataset.dtype, dataset.dtype.itemsize
        if code != _BITSHUFFLE or len(values) < 5 or values[4] != _LZ4:
            return None
        if kind.kind != "u" or width not in (2, 4) or kind.byteorder == ">":
            return None
        at, size = np.zeros(self.count, np.int64), np.zeros(self.count, np.int64)
        plain = True

        def note(chunk: Any) -> None:
            nonlocal plain
            frame = chunk.chunk_offset[0]
            at[frame], size[frame] = chunk.byte_offset, chunk.size
            plain &= chunk.filter_mask == 0

        dataset.id.chunk_iter(note)
        if not plain or (at < 0).any() or (at + size > os.stat(self.path).st_size).any():
            return None
        with open(self.path, "rb") as raw:
            each = elements_of_block(os.pread(raw.fileno(), 12, int(at[0])), width)
        return _Chunks(at, size, each) if each else None


def _first(file: h5py.File, names: tuple[str, ...], what: str, argument: str) -> str:
    for name in names:
        if hdf5.found(file, name) is not None:
            return name
    raise KernelError(
        f"The input {file.filename!r} has no {what} at {', '.join(names)}: say where they are by `{argument}`.",
        Exit.BAD_INPUT,
    )
