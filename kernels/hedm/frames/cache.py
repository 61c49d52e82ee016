"""HEXRD's frame caches: `.npz` files that hold of each frame only the pixels above a threshold.

Members: `{i}_row`, `{i}_col`, `{i}_data` of frame i, `shape` (rows, columns), `nframes`, `omega` in degrees: (frames,
2) where each frame begins and ends, or (frames,) where it begins. (HEXRD, `hexrd.imageseries`.)
"""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.hedm.frames.source import CROWDED, Doubles, Limits, Seen, bad, held_as, plausible
from kernels.io.hdf5 import regular

_AT_ONCE = 128
_MARKS = ("_row.npy", "_col.npy", "_data.npy")


class CacheSource:
    """The frames of a frame cache (see `Source`).

    Raises
    ------
    KernelError
        Exit 66 when the file is missing or empty, 65 when it is truncated or a member is missing.
    """

    masked: NDArray[np.bool_] | None = None
    held = "pixels"
    deep = 1

    def __init__(self, path: str) -> None:
        self.path = self.name = path
        regular(path)
        try:
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as members:
                names = set(members.zip.namelist())
                if "shape.npy" not in names:
                    raise bad(path, "it has no member `shape`: it is no frame cache of HEXRD.")
                shape = np.ravel(members["shape"])
                if shape.size != 2:
                    raise bad(path, f"its member `shape` holds {shape.size} numbers, not rows and columns.")
                self.rows, self.columns = (int(n) for n in shape)
                held = sum(name.endswith(_MARKS[0]) and name[: -len(_MARKS[0])].isdigit() for name in names)
                self.count = int(np.ravel(members["nframes"])[0]) if "nframes.npy" in names else held
                plausible(path, self.count, self.rows, self.columns)
                for frame in range(self.count):
                    for mark in _MARKS:
                        if f"{frame}{mark}" not in names:
                            what = f"of {self.count} frames, {held} are there: member {frame}{mark[:-4]} is missing."
                            raise bad(path, f"{what} Copy it again.")
                stored = members["0_data"].dtype
                self.kind = held_as(stored)
                self.omega_deg: Doubles | None = None
                if "omega.npy" in names:
                    self.omega_deg = np.asarray(members["omega"], np.float64)
        except (zipfile.BadZipFile, ValueError, EOFError, KeyError, OSError) as error:
            raise bad(path, f"it is no whole frame cache ({error}). Copy it again.") from error
        if stored.kind not in "iuf":
            raise bad(path, f"its frames hold {stored}, not numbers.")
        self.at_once = _AT_ONCE

    def frames(self, first: int, beyond: int) -> NDArray[Any]:
        starts, pixels, values = self.read(first, beyond)
        laid_out = np.zeros((beyond - first, self.rows * self.columns), self.kind)
        laid_out[np.repeat(np.arange(beyond - first), np.diff(starts)), pixels] = values
        return laid_out.reshape(-1, self.rows, self.columns)

    def fill(self, first: int, beyond: int, into: NDArray[Any]) -> None:
        np.copyto(into, self.frames(first, beyond))

    def read(self, first: int, beyond: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any]]:
        """Where the pixels of each frame begin, their numbers, ascending, and what they hold."""
        starts = np.zeros(beyond - first + 1, np.int64)
        pixels, values = [np.empty(0, np.int32)], [np.empty(0, self.kind)]
        try:
            with open(self.path, "rb") as raw, np.load(raw, allow_pickle=False) as members:
                for frame in range(first, beyond):
                    some, held = self._frame(frame, *(members[f"{frame}{mark[:-4]}"] for mark in _MARKS))
                    pixels.append(some)
                    values.append(held)
                    starts[frame - first + 1] = len(some)
        except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
            raise bad(self.path, f"frames {first} to {beyond - 1} cannot be read ({error}). Copy it again.") from error
        return np.cumsum(starts), np.concatenate(pixels), np.concatenate(values)

    def look(self, block: Any, limits: Limits, above: NDArray[Any]) -> Seen:
        starts, pixels, values = block
        count = len(starts) - 1
        frames = np.repeat(np.arange(count), np.diff(starts))
        here = values > above[pixels]
        full, odd = here & (values >= limits.saturation), values != values
        found, saturated, not_numbers = (np.bincount(frames[which], minlength=count) for which in (here, full, odd))
        crowded = found > self.rows * self.columns // CROWDED
        here &= ~crowded[frames]
        counts = values[here].astype(np.float32) - limits.dark.ravel()[pixels[here]]
        ends = np.concatenate([[0], np.cumsum(np.where(crowded, 0, found))]).astype(np.int64)
        # A frame without pixels has none above the threshold with which the cache was made: that is not strange.
        return Seen(ends, pixels[here], counts, saturated, not_numbers, np.zeros(count, np.bool_), crowded)

    def _frame(
        self, frame: int, row: NDArray[Any], column: NDArray[Any], data: NDArray[Any]
    ) -> tuple[NDArray[np.int32], NDArray[Any]]:
        if not row.shape == column.shape == data.shape or row.ndim != 1:
            raise bad(self.path, f"frame {frame} has {row.size} rows, {column.size} columns and {data.size} counts.")
        if not len(row):
            return np.empty(0, np.int32), np.empty(0, self.kind)
        rows, columns = row.astype(np.int64), column.astype(np.int64)
        if min(rows.min(), columns.min()) < 0 or rows.max() >= self.rows or columns.max() >= self.columns:
            shape = f"{self.rows} x {self.columns}"
            what = f"frame {frame} has a pixel in row {rows.max()}, column {columns.max()} of a detector of {shape}"
            turned = columns.max() < self.rows and rows.max() < self.columns
            raise bad(self.path, f"{what}.{' Rows and columns look exchanged.' if turned else ''}")
        pixels = (rows * self.columns + columns).astype(np.int32)
        if (np.diff(pixels) <= 0).any():
            order = np.argsort(pixels, kind="stable")
            pixels, data = pixels[order], data[order]
            if (np.diff(pixels) == 0).any():
                raise bad(self.path, f"frame {frame} holds a pixel twice.")
        return pixels, data.astype(self.kind, copy=False)
