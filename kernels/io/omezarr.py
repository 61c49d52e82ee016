"""Write and open volumes as OME-Zarr with a pyramid.

NGFF 0.5 on Zarr v3, not 0.4 on v2: it is the version that napari-ome-zarr, neuroglancer, Fiji's and the ome-zarr
readers of today share and the one that the specification develops, and all metadata of an image is one file.
https://ngff.openmicroscopy.org/0.5/

Chunks are not compressed unless it is wished: reconstructed noise shrinks by a tenth or two, at ten times the time.
They are written as the files that they are, without passing through a library, those of the coarser levels with those
of the finest that they are made of.

Level n + 1 is the mean of 2 x 2 x 2 voxels of level n (an odd last voxel counts twice). Levels are added until the
widest axis has at most `_SMALLEST` voxels. Each axis that shrinks by 2 moves its origin by half a voxel, which the
`translation` of the level says.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle
from zarr.storage import LocalStore

from kernels.cautions import Caution
from kernels.compiled import compiled
from kernels.errors import Exit, KernelError
from kernels.io import direct
from kernels.ranks import Ranks

_CHUNK_PLANE = 256
_SMALLEST = 64
_AT_ONCE = 4  # chunks on their way to the disk
_LZ4 = BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.shuffle)

Floats = NDArray[np.float32]


class VolumeWriter:
    """Writes a float32 volume (z, y, x) slab by slab, and its pyramid.

    Parameters
    ----------
    path
        The directory to fill; exists and is empty, or holds what a writer of the same volume has written.
    shape
        (z, y, x).
    chunk_layers
        Layers per chunk; slabs begin at multiples of it.
    name
        Of the image, shown by viewers.
    pixel_size_um
        Voxel edge in micrometres; None: lengths are in voxels and carry no unit.
    compression
        "none" or "lz4".
    ranks
        Those that write it together, each with a writer of its own; all make theirs, and `finish`, at the same time.
        No two may write one chunk.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        *,
        chunk_layers: int,
        name: str = "volume",
        pixel_size_um: float | None = None,
        compression: str = "none",
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        self._path, self._name, self._pixel_size_um = path, name, pixel_size_um
        self._chunk_layers, self._compressed = chunk_layers, compression != "none"
        if self._ranks.first:
            self._group = zarr.open_group(LocalStore(path), mode="a", zarr_format=3)
        self._ranks.meet()
        if not self._ranks.first:
            self._group = zarr.open_group(LocalStore(path), mode="r+", zarr_format=3)
        self._levels = [self._create(0, shape)]
        # As long as a chunk is halved into a chunk, it brings with it those of the coarser levels.
        while chunk_layers % 2 ** len(self._levels) == 0 and max(self._levels[-1].shape) > _SMALLEST:
            self._levels.append(self._create(len(self._levels), _halved_shape(self._levels[-1].shape)))
        self._with_slabs = len(self._levels)
        self._pool, self._rooms = ThreadPoolExecutor(_AT_ONCE, "chunk"), _Rooms()
        self.finite = 0
        self.minimum, self.maximum = math.inf, -math.inf

    def write(self, start: int, slab: Floats) -> None:
        """Put `slab` (layers, y, x) at layer `start`, on the disk.

        Raises
        ------
        KernelError
            Exit 3 when a value is not finite: such a volume is not written.
        """
        self.count(start, slab)
        for level in range(self._with_slabs):
            if level:
                slab = _mean_of_two(slab)
            self._put(level, start >> level, slab)

    def count(self, start: int, slab: Floats) -> None:
        """Count in what `write` has written, now or in an earlier run."""
        least, most = float(slab.min()), float(slab.max())
        if not (math.isfinite(least) and math.isfinite(most)):
            count = int((~np.isfinite(slab)).sum())
            raise KernelError(
                f"{count} voxels of slices {start} to {start + len(slab) - 1} are not finite.",
                Exit.BAD_OUTPUT,
            )
        self.finite += slab.size
        self.minimum, self.maximum = min(self.minimum, least), max(self.maximum, most)

    def read(self, start: int, stop: int) -> Floats:
        """Layers that are written."""
        return np.asarray(self._levels[0][start:stop], np.float32)

    def gather(self) -> None:
        """Give `finite`, `minimum` and `maximum` of rank 0 those of the whole volume."""
        parts = self._ranks.gathered((self.finite, self.minimum, self.maximum))
        if parts:
            finite, least, most = zip(*parts, strict=True)
            self.finite, self.minimum, self.maximum = sum(finite), min(least), max(most)

    def finish(self, window: tuple[float, float], warnings: Iterable[Caution] = ()) -> None:
        """Make what is left of the pyramid and write the metadata. `window` is what viewers show from black to white:
        rank 0's, as the warnings, which become the attribute `warnings`."""
        self._ranks.meet()
        while max(self._levels[-1].shape) > _SMALLEST:
            self._levels.append(self._halved(self._levels[-1]))
        self._ranks.meet()
        self._pool.shutdown()
        if self._ranks.first:
            self._group.attrs["ome"] = self._metadata(window)
            if cautions := [caution._asdict() for caution in warnings]:
                self._group.attrs["warnings"] = cautions

    def _create(self, level: int, shape: tuple[int, ...]) -> zarr.Array[Any]:
        name = str(level)
        if self._ranks.first and name not in self._group:
            layers = max(1, self._chunk_layers >> level)
            self._group.create_array(
                name,
                shape=shape,
                chunks=tuple(min(n, c) for n, c in zip(shape, (layers, _CHUNK_PLANE, _CHUNK_PLANE), strict=True)),
                dtype="<f4",
                compressors=_LZ4 if self._compressed else None,
                dimension_names=("z", "y", "x"),
            )
        self._ranks.meet()
        array = self._group[name]
        assert isinstance(array, zarr.Array)
        # A missing chunk is always a fault. The setting belongs to the open array and is not stored.
        return array.with_config({"write_empty_chunks": True})

    def _put(self, level: int, start: int, block: Floats) -> None:
        """Layers from `start` on of a level: whole chunks, or up to its end."""
        array = self._levels[level]
        if self._compressed:
            array[start : start + len(block)] = block
            return
        layers, rows, columns = array.chunks
        corners = itertools.product(
            range(0, len(block), layers), range(0, block.shape[1], rows), range(0, block.shape[2], columns)
        )
        list(self._pool.map(partial(self._put_chunk, level, start, block), corners))

    def _put_chunk(self, level: int, start: int, block: Floats, corner: tuple[int, int, int]) -> None:
        chunks = self._levels[level].chunks
        part = block[tuple(slice(a, a + n) for a, n in zip(corner, chunks, strict=True))]
        if level not in self._rooms.of:
            self._rooms.of[level] = direct.room(chunks)
        whole = self._rooms.of[level]
        if part.shape != chunks:
            whole[:] = 0
        whole[tuple(slice(n) for n in part.shape)] = part
        z, y, x = ((a + before) // n for a, before, n in zip(corner, (start, 0, 0), chunks, strict=True))
        folder = self._path / f"{level}/c/{z}/{y}"
        folder.mkdir(parents=True, exist_ok=True)
        direct.write(folder / str(x), whole)

    def _halved(self, fine: zarr.Array[Any]) -> zarr.Array[Any]:
        level = len(self._levels)
        coarse = self._create(level, _halved_shape(fine.shape))
        self._levels.append(coarse)
        step = coarse.chunks[0]
        mine = self._ranks.share(coarse.shape[0], step)
        for start in range(mine.start, mine.stop, step):
            self._put(level, start, _mean_of_two(np.asarray(fine[2 * start : 2 * (start + step)])))
        self._ranks.meet()
        return self._levels.pop()

    def _metadata(self, window: tuple[float, float]) -> dict[str, Any]:
        unit = {"unit": "micrometer"} if self._pixel_size_um else {}
        base = self._pixel_size_um or 1.0
        factors = [1.0, 1.0, 1.0]
        datasets = []
        for level in range(len(self._levels)):
            if level:
                finer = self._levels[level - 1].shape
                factors = [f * (2 if n > 1 else 1) for f, n in zip(factors, finer, strict=True)]
            datasets.append(
                {
                    "path": str(level),
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [base * f for f in factors]},
                        {"type": "translation", "translation": [base * (f - 1) / 2 for f in factors]},
                    ],
                }
            )
        axes = [{"name": name, "type": "space", **unit} for name in "zyx"]
        low, high = window
        channel = {
            "active": True,
            "color": "FFFFFF",
            "label": "attenuation",
            "window": {"min": self.minimum, "max": self.maximum, "start": low, "end": high},
        }
        return {
            "version": "0.5",
            "multiscales": [
                {
                    "name": self._name,
                    "axes": axes,
                    "datasets": datasets,
                    "type": "mean",
                    "metadata": {"factor": 2},
                }
            ],
            "omero": {"name": self._name, "channels": [channel], "rdefs": {"model": "greyscale"}},
        }


class _Rooms(threading.local):
    """For each thread, a chunk of each level, to be filled and written."""

    def __init__(self) -> None:
        self.of: dict[int, Floats] = {}


def _halved_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // 2) for n in shape)


def _mean_of_two(block: Floats) -> Floats:
    result = np.empty(_halved_shape(block.shape), np.float32)
    _fill_means(block, result)
    return result


@compiled()
def _fill_means(fine: Floats, coarse: Floats) -> None:
    """Means of 2 x 2 x 2; an odd last one counts twice."""
    last = fine.shape[0] - 1, fine.shape[1] - 1, fine.shape[2] - 1
    for z in range(coarse.shape[0]):
        for y in range(coarse.shape[1]):
            a, b = fine[2 * z, 2 * y], fine[2 * z, min(2 * y + 1, last[1])]
            c, d = fine[min(2 * z + 1, last[0]), 2 * y], fine[min(2 * z + 1, last[0]), min(2 * y + 1, last[1])]
            for x in range(coarse.shape[2]):
                i, j = 2 * x, min(2 * x + 1, last[2])
                coarse[z, y, x] = (a[i] + a[j] + b[i] + b[j] + c[i] + c[j] + d[i] + d[j]) * np.float32(0.125)


def check_volume(path: Path, shape: tuple[int, int, int]) -> None:
    """Open what was written and compare it with what was meant.

    Raises
    ------
    KernelError
        Exit 3 when array `0` is not float32 of `shape`, or a chunk of a level is missing.
    """
    group = zarr.open_group(LocalStore(path), mode="r")
    whole = group["0"]
    if not isinstance(whole, zarr.Array) or whole.shape != shape or whole.dtype != np.float32:
        raise KernelError(f"The written volume {str(path)!r} is not what was meant.", Exit.BAD_OUTPUT)
    for name, array in group.arrays():
        if array.nchunks_initialized != array.nchunks:
            raise KernelError(f"The written volume {str(path)!r} lacks chunks of level {name}.", Exit.BAD_OUTPUT)


def open_level(path: str, level: str) -> zarr.Array[Any]:
    """An array of the OME-Zarr at `path`, for reading.

    Raises
    ------
    KernelError
        Exit 66 when there is nothing at `path`, 65 when it is no Zarr group with this array.
    """
    if not Path(path).exists():
        raise KernelError(f"The volume {path!r} is missing.", Exit.NO_INPUT)
    try:
        array = zarr.open_group(LocalStore(Path(path)), mode="r")[level]
    except (FileNotFoundError, KeyError, ValueError, NotADirectoryError) as error:
        raise KernelError(f"The volume {path!r} is not an OME-Zarr with an array {level!r}.", Exit.BAD_INPUT) from error
    if not isinstance(array, zarr.Array) or array.ndim != 3:
        raise KernelError(f"The volume {path!r} has no three-dimensional array {level!r}.", Exit.BAD_INPUT)
    return array
