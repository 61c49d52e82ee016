"""The frames that were chosen of a source, with their omegas, read from the first to the last in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.hedm.frames import omegas as omega
from kernels.hedm.frames.omegas import Omegas, Sweep
from kernels.hedm.frames.source import Limits, Pixels, Scanner, Seen, Source, bad
from kernels.hedm.frames.turns import Turn
from kernels.ranks import Ranks

# What was met with, in the order in which it is told.
BLANK = "empty frames"
FULL = "saturated frames"
FULL_PIXELS = "saturated pixels"
TOUCHED = "frames with saturated pixels"
NOT_NUMBERS = "pixels that are not numbers"


class Frames:
    """Frames `first` to `beyond` (left out) of a source, numbered from 0.

    Parameters
    ----------
    source : Source
    omegas : Sweep, optional
        Of all frames of the source, from its first on; not given: as the source says.
    first, beyond : int
    turn : Turn
        How the picture is got from the stored frame.
    mask : ndarray of bool, optional
        As stored. False: the pixel does not count. What the file itself masks does not either.
    shape : tuple of int, optional
        Rows and columns that the picture has to have.

    Attributes
    ----------
    rows, columns : int
        As stored; `shape` is that of the picture.
    used : ndarray of bool, shape (rows, columns)
        Pixels that count.

    Raises
    ------
    KernelError
        Exit 2 for a range that does not fit, 65 for another shape, a mask that does not fit or leaves nothing, or
        omegas that are missing, repeat or turn back.
    """

    def __init__(
        self,
        source: Source,
        *,
        omegas: Sweep | None = None,
        first: int = 0,
        beyond: int | None = None,
        turn: Turn = Turn(),  # noqa: B008 -- immutable
        mask: NDArray[np.bool_] | None = None,
        shape: tuple[int, int] | None = None,
    ) -> None:
        beyond = source.count if beyond is None else beyond
        if not 0 <= first < beyond <= source.count:
            raise KernelError(f"The frames {source.name!r} are {source.count}: {first} to {beyond} are none of them.")
        self.source, self.name, self.turn = source, source.name, turn
        self.rows, self.columns, self.kind = source.rows, source.columns, source.kind
        self.first, self.count = first, beyond - first
        self.shape = turn.picture(np.empty((self.rows, self.columns), np.bool_)).shape
        if shape is not None and self.shape != tuple(shape):
            raise bad(self.name, f"they are {_times(self.shape)} pixels, not {_times(shape)}.{self._advice(shape)}")
        if omegas is not None:
            edges = omega.swept(omegas, source.count)
        else:
            edges = omega.checked(source.omega_deg, count=source.count, name=source.name)
        self.omegas: Omegas = omega.ordered(edges[first:beyond], name=source.name)
        self.used = np.ones((self.rows, self.columns), np.bool_)
        if source.masked is not None:
            self.used &= ~source.masked
        if mask is not None:
            if mask.shape != self.used.shape:
                what = f"The mask is of {_times(mask.shape)} pixels, the frames {self.name!r} of"
                raise KernelError(f"{what} {_times(self.used.shape)} as they are stored.", Exit.BAD_INPUT)
            self.used &= mask
        if not self.used.any():
            raise KernelError(f"The mask leaves no pixel of the frames {self.name!r}.", Exit.BAD_INPUT)

    def pictures(self, first: int, beyond: int) -> NDArray[Any]:
        """Frames laid out as stored, shape (beyond - first, rows, columns)."""
        return self.source.frames(self.first + first, self.first + beyond)

    def share(self, ranks: Ranks) -> range:
        """This rank's part of the frames, in pieces as they are stored."""
        deep = self.source.deep
        before = self.first % deep
        part = ranks.share(before + self.count, deep)
        return range(max(0, part.start - before), max(0, part.stop - before))

    def blocks(
        self,
        limits: Limits,
        tally: Counter[str],
        *,
        part: range | None = None,
        at_once: int | None = None,
        scanner: Scanner | None = None,
    ) -> Iterator[Pixels]:
        """The pixels above their limits, block after block, while the next is read; `tally` counts what was strange.

        Of all frames, or of those that are `part` of them; found by the source itself, or by a `scanner` in its place.
        Saturated frames, of which more than half the pixels are, count as if nothing had been seen in them.

        Raises
        ------
        KernelError
            Exit 65 when more than a quarter of a frame's pixels are above their limits.
        """
        part = range(self.count) if part is None else part
        if not part:
            return
        above = limits.above(self.kind)
        step = at_once or self.source.at_once
        if scanner is not None:
            step = min(step, scanner.at_once)
        begin, end = self.first + part.start, self.first + part.stop
        bounds = [begin, *range((begin // step + 1) * step, end, step), end]  # pieces as they are stored stay whole
        if scanner is None:
            looks = self._looks(bounds, limits, above)
        else:
            looks = scanner.look(self.source, bounds, limits, above)
        for first, seen in zip(bounds[:-1], looks, strict=True):
            self._count(seen, first, tally)
            yield Pixels(first - self.first, seen.starts, seen.pixels, seen.values)

    def _looks(self, bounds: Sequence[int], limits: Limits, above: NDArray[Any]) -> Iterator[Seen]:
        with ThreadPoolExecutor(1, "read") as reader:
            coming = reader.submit(self.source.read, bounds[0], bounds[1])
            for n in range(len(bounds) - 1):
                block = coming.result()
                if n + 2 < len(bounds):
                    coming = reader.submit(self.source.read, bounds[n + 1], bounds[n + 2])
                yield self.source.look(block, limits, above)

    def refuse_blank(self, tally: Counter[str]) -> None:
        """Refuse frames, all of which were counted, when none of them has any counts.

        Raises
        ------
        KernelError
            Exit 65.
        """
        if tally[BLANK] == self.count:
            raise bad(self.name, f"all {self.count} hold nothing but zeros. The detector was not read out.")

    def _count(self, seen: Seen, begin: int, tally: Counter[str]) -> None:
        size = self.rows * self.columns
        full = seen.saturated > size // 2
        if (too_many := seen.crowded & ~full).any():
            at = int(np.flatnonzero(too_many)[0])
            raise bad(
                self.name,
                f"more than a quarter of the pixels of frame {begin + at} are above the threshold. Raise it, or give a "
                "dark.",
            )
        tally[BLANK] += int(seen.blank.sum())
        tally[FULL] += int(full.sum())
        tally[TOUCHED] += int((seen.saturated > 0).sum())
        tally[FULL_PIXELS] += int(seen.saturated.sum())
        tally[NOT_NUMBERS] += int(seen.not_numbers.sum())

    def _advice(self, shape: tuple[int, int]) -> str:
        if self.shape == (shape[1], shape[0]):
            return " Rows and columns are exchanged: turn them by 3, or correct the geometry."
        return " Is it another panel, or were pixels binned?"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
