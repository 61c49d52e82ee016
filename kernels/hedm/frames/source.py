"""What every format gives: frames as they are stored, and the pixels in them that lie above their limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

BLOCK_BYTES = 1 << 26  # about so much of a file is held at a time, and as much is read ahead
MOST_PIXELS = 1 << 28
MOST_FRAMES = 1 << 24
CROWDED = 4  # more than one pixel in so many above the limit are no spots


class Pixels(NamedTuple):
    """The pixels of frames that follow each other in which something was seen, frame by frame.

    Attributes
    ----------
    first : int
        Number of the first frame, counted in those that were chosen.
    starts : ndarray, shape (frames + 1,), int64
        Where the pixels of each frame begin in the two others; the last is where they end.
    pixels : ndarray, shape (n,), int32
        `row * columns + column` as the detector stores them, ascending within a frame.
    values : ndarray, shape (n,), float32
        Counts less the dark.
    """

    first: int
    starts: NDArray[np.int64]
    pixels: NDArray[np.int32]
    values: Floats

    @property
    def frames(self) -> int:
        return len(self.starts) - 1


class Limits(NamedTuple):
    """What is subtracted from each pixel, and above what it is looked at, as the detector stores them.

    Attributes
    ----------
    dark, threshold : ndarray, shape (rows, columns), float32
        Both in counts; a threshold of infinity leaves the pixel out.
    saturation : float
        Counts from which on a pixel is saturated.
    noise : ndarray, shape (rows, columns), float32, or None
        Standard deviation of the dark, if it is known.
    """

    dark: Floats
    threshold: Floats
    saturation: float
    noise: Floats | None = None

    def above(self, kind: np.dtype[Any]) -> NDArray[Any]:
        """For each pixel the largest number of this kind that is not above dark and threshold, flat.

        So `stored > above` for whole numbers is `stored - dark > threshold`, without rounding.
        """
        limits = self.dark.ravel().astype(np.float64) + self.threshold.ravel()
        if kind.kind == "f":
            return limits.astype(kind)
        bounds = np.iinfo(kind)
        limits = np.clip(np.floor(limits), 0, float(bounds.max))
        beyond = limits >= float(bounds.max)  # of 64 bits not exact as a float
        limits[beyond] = 0
        whole = limits.astype(kind)
        whole[beyond] = bounds.max
        return whole


class Seen(NamedTuple):
    """What a source found above the limits in some frames, and how many pixels of each frame were of what kind.

    Attributes
    ----------
    starts, pixels, values
        As `Pixels`.
    saturated, not_numbers : ndarray, shape (frames,), int64
        Pixels found at or above the saturation; pixels that are NaN.
    blank, crowded : ndarray, shape (frames,), bool
        Whether a frame holds nothing but zeros; whether more than a quarter of its pixels are above their limits, of
        which none are given then.
    """

    starts: NDArray[np.int64]
    pixels: NDArray[np.int32]
    values: Floats
    saturated: NDArray[np.int64]
    not_numbers: NDArray[np.int64]
    blank: NDArray[np.bool_]
    crowded: NDArray[np.bool_]


class Source(Protocol):
    """The frames of a file or a series as they are stored, numbered from 0.

    Attributes
    ----------
    name : str
        For messages.
    rows, columns, count : int
        Shape of the detector as stored, and how many frames there are.
    kind : dtype
        Of a pixel, as `held_as` gives it.
    omega_deg : ndarray, shape (count, 2), or None
        Where the rotation was when each frame began and ended, if the file says so.
    masked : ndarray of bool, shape (rows, columns), or None
        Pixels that the file itself declares bad.
    at_once : int
        How many frames are best read together.
    deep : int
        How many frames are stored as one piece, which is read as a whole, from the first frame on.
    held : str
        What `read` gives: `frames`, laid out; `packed` ones, of which `look` lays none out; or `pixels` alone.
    """

    name: str
    rows: int
    columns: int
    count: int
    kind: np.dtype[Any]
    omega_deg: Doubles | None
    masked: NDArray[np.bool_] | None
    at_once: int
    deep: int

    @property
    def held(self) -> str: ...

    def frames(self, first: int, beyond: int) -> NDArray[Any]:
        """Frames laid out, shape (beyond - first, rows, columns)."""

    def fill(self, first: int, beyond: int, into: NDArray[Any]) -> None:
        """The same, put into memory that is there, of `kind` and without gaps; as `read`, by a thread."""

    def read(self, first: int, beyond: int) -> Any:
        """Frames as `look` takes them, which stay as they are until the call after the next.

        Called by a thread that reads ahead, so no compiled code on all cores.
        """

    def look(self, block: Any, limits: Limits, above: NDArray[Any]) -> Seen:
        """The pixels above `above`, which is `limits.above(kind)`, in what `read` gave."""


class Scanner(Protocol):
    """What looks at the frames of a source in its place.

    Attributes
    ----------
    at_once : int
        How many frames it takes together at most.
    """

    @property
    def at_once(self) -> int: ...

    def look(self, source: Source, bounds: Sequence[int], limits: Limits, above: NDArray[Any]) -> Iterator[Seen]:
        """What is seen between each two neighbours of `bounds`, as `Source.look` has it."""


class Buffers:
    """Room for what is read, two in turn: new memory for every block costs as much as reading it."""

    def __init__(self) -> None:
        self._held = [np.empty(0, np.uint8), np.empty(0, np.uint8)]

    def next(self, size: int) -> NDArray[np.uint8]:
        """So many bytes, with what lies in them."""
        self._held.reverse()
        if len(self._held[0]) < size:
            self._held[0] = np.empty(size + size // 8, np.uint8)
        return self._held[0][:size]


def bad(name: str, what: str) -> KernelError:
    return KernelError(f"The frames {name!r} are not usable: {what}", Exit.BAD_INPUT)


def plausible(name: str, count: int, rows: int, columns: int) -> None:
    """Refuse shapes that no detector has.

    Raises
    ------
    KernelError
        Exit 65.
    """
    if min(count, rows, columns) < 1 or rows * columns > MOST_PIXELS or count > MOST_FRAMES:
        raise bad(name, f"they claim {count} frames of {rows} x {columns} pixels.")


def held_as(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Of which kind frames are made that are stored as `stored`: of few, since each is compiled by itself.

    Numbers of 64 bits become floats of 32, so that counts above 2^24 are rounded.
    """
    if stored.kind == "f" or stored.itemsize > 4:
        return np.dtype(np.float32)
    if stored.kind == "u":
        return np.dtype(np.uint16 if stored.itemsize <= 2 else np.uint32)
    return np.dtype(np.int32)


def frames_at_once(rows: int, columns: int, kind: np.dtype[Any]) -> int:
    """How many frames, laid out, make a block."""
    return max(1, BLOCK_BYTES // (rows * columns * kind.itemsize))
