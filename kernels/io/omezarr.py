"""Write and open volumes as OME-Zarr with a pyramid.

NGFF 0.5 on Zarr v3, not 0.4 on v2: it is the version that napari-ome-zarr, neuroglancer, Fiji's and the ome-zarr
readers of today share and the one that the specification develops, and all metadata of an image is one file.
https://ngff.openmicroscopy.org/0.5/

Level n + 1 is the mean of 2 x 2 x 2 voxels of level n (an odd last voxel counts twice). Levels are added until the
widest axis has at most `_SMALLEST` voxels. Each axis that shrinks by 2 moves its origin by half a voxel, which the
`translation` of the level says.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle
from zarr.storage import LocalStore

from kernels.errors import Exit, KernelError
from kernels.ranks import Ranks

_CHUNK_PLANE = 256
_SMALLEST = 64

Floats = NDArray[np.float32]


class VolumeWriter:
    """Writes a float32 volume (z, y, x) slab by slab, then its pyramid.

    Parameters
    ----------
    path
        The directory to fill; exists and is empty.
    shape
        (z, y, x).
    chunk_layers
        Layers per chunk. Slabs that begin at multiples of it are written without reading back.
    name
        Of the image, shown by viewers.
    pixel_size_um
        Voxel edge in micrometres; None: lengths are in voxels and carry no unit.
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
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        if self._ranks.first:
            self._group = zarr.create_group(LocalStore(path), zarr_format=3)
        self._ranks.meet()
        if not self._ranks.first:
            self._group = zarr.open_group(LocalStore(path), mode="r+", zarr_format=3)
        self._name, self._pixel_size_um = name, pixel_size_um
        self._chunk_layers = chunk_layers
        self._levels = [self._create("0", shape)]
        self.finite = 0
        self.minimum, self.maximum = math.inf, -math.inf

    def write(self, start: int, slab: Floats) -> None:
        """Put `slab` (layers, y, x) at layer `start`.

        Raises
        ------
        KernelError
            Exit 3 when a value is not finite: such a volume is not written.
        """
        least, most = float(slab.min()), float(slab.max())
        if not (math.isfinite(least) and math.isfinite(most)):
            count = int((~np.isfinite(slab)).sum())
            raise KernelError(
                f"{count} voxels of slices {start} to {start + len(slab) - 1} are not finite.",
                Exit.BAD_OUTPUT,
            )
        self._levels[0][start : start + len(slab)] = slab
        self.finite += slab.size
        self.minimum, self.maximum = min(self.minimum, least), max(self.maximum, most)

    def gather(self) -> None:
        """Give `finite`, `minimum` and `maximum` of rank 0 those of the whole volume."""
        parts = self._ranks.gathered((self.finite, self.minimum, self.maximum))
        if parts:
            finite, least, most = zip(*parts, strict=True)
            self.finite, self.minimum, self.maximum = sum(finite), min(least), max(most)

    def finish(self, window: tuple[float, float]) -> None:
        """Make the pyramid and write the metadata. `window` is what viewers show from black to white: rank 0's."""
        while max(self._levels[-1].shape) > _SMALLEST:
            self._levels.append(self._halved(self._levels[-1]))
        self._ranks.meet()
        if self._ranks.first:
            self._group.attrs["ome"] = self._metadata(window)

    def _create(self, name: str, shape: tuple[int, ...]) -> zarr.Array[Any]:
        if self._ranks.first:
            self._made(name, shape)
        self._ranks.meet()
        array = self._group[name]
        assert isinstance(array, zarr.Array)
        # A missing chunk is always a fault. The setting belongs to the open array and is not stored.
        return array.with_config({"write_empty_chunks": True})

    def _made(self, name: str, shape: tuple[int, ...]) -> None:
        chunks = tuple(min(n, c) for n, c in zip(shape, (self._chunk_layers, _CHUNK_PLANE, _CHUNK_PLANE), strict=True))
        self._group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype="float32",
            compressors=BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.shuffle),
            dimension_names=("z", "y", "x"),
        )

    def _halved(self, fine: zarr.Array[Any]) -> zarr.Array[Any]:
        shape = tuple(-(-n // 2) for n in fine.shape)
        coarse = self._create(str(len(self._levels)), shape)
        step = coarse.chunks[0]
        mine = self._ranks.share(shape[0], step)
        for start in range(mine.start, mine.stop, step):
            block = np.asarray(fine[2 * start : 2 * (start + step)])
            coarse[start : start + step] = _mean_of_two(block)
        return coarse

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


def _mean_of_two(block: Floats) -> Floats:
    for axis in range(3):
        if block.shape[axis] % 2:
            block = np.concatenate((block, block.take([-1], axis)), axis)
    z, y, x = (n // 2 for n in block.shape)
    return np.asarray(block.reshape(z, 2, y, 2, x, 2).mean((1, 3, 5), dtype=np.float32))


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
