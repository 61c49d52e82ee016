"""From frames to a table of spots, block after block.

Pixels above their limits are kept until all that hangs together with them has been read: an island of pixels is worked
out once no pixel of it lies in the last frame read. Islands do not know of each other, so where blocks end changes
nothing. In a scan of a full turn, islands that touch the first frame wait for the last.

Several ranks have a run of frames each, one after the other. Islands that touch an end of a run wait until it has been
put together with the run beside it, two and two, until all are one. Only pixels of such islands go from rank to rank,
and a hot pixel, which lasts for the whole scan, makes nobody read the frames of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from kernels.errors import KernelError
from kernels.hedm.frames import Frames, Limits, Pixels
from kernels.hedm.frames.source import Doubles, Floats, Scanner, bad
from kernels.hedm.peaks.fit import Fitted, fit, list_by_spot
from kernels.hedm.peaks.label import Ints, Keys, Slots, label
from kernels.hedm.peaks.measure import EDGE, MASKED, OVERLAPPED, Measured, Where, measure
from kernels.hedm.peaks.spots import FITTED, Spots, none
from kernels.ranks import Ranks

SMALL = "spots of too few pixels"
LEAST_PIXELS = 3
SADDLE = 0.8
_MOST_HELD = 1 << 25
_ROUND = 1 / 12  # variance of a pixel's centre as a place in the pixel


class Found(NamedTuple):
    """What a search gives.

    Attributes
    ----------
    spots : Spots
        With several ranks: for rank 0; the others get none.
    met : dict
        What was met with, by name: how many.
    doubts : tuple of str
        What is strange about the frames but used, a sentence each.
    """

    spots: Spots
    met: dict[str, int]
    doubts: tuple[str, ...]


class _List(NamedTuple):
    """Pixels by frame, row and column."""

    frame: NDArray[np.int32]
    keys: Keys
    values: Floats

    def chosen(self, which: NDArray[Any]) -> _List:
        return _List(self.frame[which], self.keys[which], self.values[which])

    def with_more(self, other: _List) -> _List:
        return _List(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))

    def in_order(self) -> _List:
        return self.chosen(np.lexsort((self.keys, self.frame)))


_NOTHING = _List(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))


def find_spots(
    frames: Frames,
    limits: Limits,
    *,
    least_pixels: int = LEAST_PIXELS,
    saddle: float = SADDLE,
    gaussians: bool = False,
    panel: int = 0,
    at_once: int | None = None,
    watch: Callable[[int], None] | None = None,
    ranks: Ranks | None = None,
    scanner: Scanner | None = None,
) -> Found:
    """Find spots in (row, column, frame) and measure them.

    Parameters
    ----------
    frames : Frames
    limits : Limits
        From `kernels.hedm.peaks.limits`.
    least_pixels : int
        Spots of fewer pixels are left out.
    saddle : float
        Maxima are one spot when the saddle between them is higher than this part of the lower one (see `label`).
    gaussians : bool
        Whether to fit Gaussians.
    panel : int
        Number of the panel, for the table.
    at_once : int, optional
        How many frames are held at a time. The result does not depend on it.
    watch : callable, optional
        Called with how many frames have been searched, as if all ranks were as far as this one.
    ranks : Ranks, optional
        Processes that share the frames, each with the same `limits`. The result does not depend on them.
    scanner : Scanner, optional
        What compares the frames with the limits: a GPU made ready (`kernels.hedm.frames.cuda.scan`); not given: the
        CPU. The result does not depend on it.

    Raises
    ------
    KernelError
        Exit 2 for numbers out of range; 65 for frames that cannot be read, or in which too much is above the threshold.
    """
    if not (least_pixels >= 1 and 0 < saddle <= 1 and (at_once is None or at_once >= 1)):
        raise KernelError(
            f"Spots need 1 pixel at least, a saddle above 0 and up to 1, and 1 frame at a time, not {least_pixels}, "
            f"{saddle:g}, {at_once}."
        )
    ranks = ranks or Ranks()
    part = frames.share(ranks)
    search = _Search(frames, limits, part.start, least_pixels=least_pixels, saddle=saddle, gaussians=gaussians)
    for block in frames.blocks(limits, search.met, part=part, at_once=at_once, scanner=scanner):
        ranks.look()
        search.take(block)
        if watch:
            watch((block.first + block.frames - part.start) * frames.count // len(part))
    search.join(ranks)
    met: Counter[str] = Counter()
    for each in ranks.said(search.met):
        met.update(each)
    frames.refuse_blank(met)
    spots = search.finished(panel, ranks).turned(frames.turn, rows=frames.rows, columns=frames.columns)
    return Found(spots, {name: count for name, count in met.items() if count}, frames.omegas.doubts)


class _Search:
    """Takes block after block of a run of frames, from `first` on, and keeps what is not complete yet."""

    def __init__(
        self, frames: Frames, limits: Limits, first: int, *, least_pixels: int, saddle: float, gaussians: bool
    ) -> None:
        self.met: Counter[str] = Counter()
        self._first = self._beyond = first
        self._frames, self._limits = frames, limits
        self._least_pixels, self._saddle, self._gaussians = least_pixels, saddle, gaussians
        self._held, self._head = _NOTHING, _NOTHING
        self._measured: list[tuple[Measured, Fitted | None]] = []
        omegas = frames.omegas
        self._width = np.deg2rad(np.diff(omegas.edges_deg, axis=1)[:, 0])
        cut = np.zeros(frames.count, np.bool_)
        cut[list(omegas.breaks)] = True
        cut[[frame - 1 for frame in omegas.breaks]] = True
        if not omegas.full_turn:
            cut[[0, -1]] = True
        self._threshold = limits.threshold.ravel()
        self._where = Where(
            frame=np.empty(0, np.int64),
            omega=np.deg2rad(omegas.edges_deg.mean(axis=1)),
            cut=cut,
            border=_border(np.isfinite(limits.threshold)).ravel(),
            full=(np.float32(limits.saturation) - limits.dark).ravel(),
            columns=frames.columns,
            turn=frames.count if omegas.full_turn else 0,
        )

    def take(self, block: Pixels) -> None:
        frame = np.repeat(np.arange(block.first, block.first + block.frames, dtype=np.int32), np.diff(block.starts))
        keys = block.pixels + block.pixels // np.int32(self._frames.columns)
        self._go_on(_List(frame, keys, block.values), block.first + block.frames)

    def join(self, ranks: Ranks) -> None:
        """Put the runs of all ranks together; of each two neighbours that are left, the second gives what waits."""
        step = 1
        while step < ranks.size:
            gives = ranks.rank % (2 * step) == step
            waiting = self._given() if gives else _NOTHING
            said = ranks.said((len(waiting.keys), self._beyond))
            given, taken = [0] * ranks.size, [0] * ranks.size
            giver = ranks.rank + step
            takes = ranks.rank % (2 * step) == 0 and giver < ranks.size
            if gives:
                given[ranks.rank - step] = len(waiting.keys)
            if takes:
                taken[giver] = said[giver][0]
            frame, keys, values = waiting
            came = _List(
                ranks.exchanged(frame, given, taken),
                ranks.exchanged(keys, given, taken),
                ranks.exchanged(values, given, taken),
            )
            if takes:
                self._go_on(came, said[giver][1])
            step *= 2

    def _go_on(self, pixels: _List, beyond: int) -> None:
        """Take the pixels of the frames up to `beyond`; at least those of islands that touch the first or last."""
        self._beyond = beyond
        self._held = self._held.with_more(pixels)
        if self._first == 0 and beyond == self._frames.count:
            self._settle(self._given(), beyond - 1, final=True)
            return
        waiting, head = self._settle(self._held, beyond - 1, final=False)
        self._head, self._held = self._head.with_more(self._held.chosen(head)), self._held.chosen(waiting)
        if len(self._held.keys) + len(self._head.keys) > _MOST_HELD:
            what = (
                f"{len(self._held.keys)} pixels up to frame {beyond - 1} hang together. Raise the threshold, or give a "
                "dark."
            )
            raise bad(self._frames.name, what)

    def _given(self) -> _List:
        """All that waits, which this rank has no more."""
        held = self._head.with_more(self._held).in_order() if len(self._head.keys) else self._held
        self._held = self._head = _NOTHING
        return held

    def _settle(self, pixels: _List, last: int, *, final: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Measure the islands that are complete; which pixels wait for the next frames, and which for the last one."""
        count = len(pixels.keys)
        if not count:
            return np.zeros(0, np.bool_), np.zeros(0, np.bool_)
        turn = self._where.turn
        first = 0 if turn and final else int(pixels.frame[0])
        frame = np.arange(first, last + 1)
        starts = np.searchsorted(pixels.frame, np.arange(first, last + 2)).astype(np.int64)
        before = np.arange(-1, len(frame) - 1)
        before[np.isin(frame, self._frames.omegas.breaks)] = -1
        after = np.full(len(frame), -1)
        after[before[before >= 0]] = np.flatnonzero(before >= 0)
        if turn and final:
            before[0], after[-1] = len(frame) - 1, 0
        slots = Slots(starts, before, after, pixels.keys, pixels.values, self._frames.columns + 1)
        place = pixels.keys - pixels.keys // np.int32(slots.stride)
        found = label(slots, self._threshold[place], saddle=self._saddle)
        waiting, head = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        whole = np.ones(len(found.maxima), np.bool_)
        if not final:
            island = np.unique(found.island, return_inverse=True)[1]
            open_ended = np.zeros(len(found.maxima), np.bool_)  # by island, of which there are no more than spots
            open_ended[island[found.spot[pixels.frame == last]]] = True
            begun = np.zeros_like(open_ended)
            if turn or self._first:
                begun[island[found.spot[pixels.frame == self._first]]] = True
            waiting, head = open_ended[island][found.spot], (begun & ~open_ended)[island][found.spot]
            whole = ~(open_ended | begun)[island]
        large = np.bincount(found.spot, minlength=len(found.maxima)) >= self._least_pixels
        self.met[SMALL] += int((whole & ~large).sum())
        chosen = whole & large
        number = np.where(chosen, np.cumsum(chosen) - 1, -1)
        spot, maxima = number[found.spot], found.maxima[chosen]
        if len(maxima):
            where = self._where._replace(frame=frame)
            measured = measure(starts, pixels.keys, pixels.values, spot, maxima, where)
            measured.flags[found.overlapped[chosen]] |= OVERLAPPED
            fitted = self._fit(pixels, place, spot, measured) if self._gaussians else None
            self._measured.append((measured, fitted))
        return waiting, head

    def _fit(self, pixels: _List, place: NDArray[np.int32], spot: Ints, measured: Measured) -> Fitted:
        bounds, order = list_by_spot(spot, len(measured.intensity))
        row, column = np.divmod(place[order], np.int32(self._frames.columns))
        frame = pixels.frame[order].astype(np.int64)
        if self._where.turn:
            away = frame - measured.peak[spot[order], 2]
            frame -= self._where.turn * np.rint(away / self._where.turn).astype(np.int64)
        variance = np.full(len(order), _ROUND, np.float32)
        if self._limits.noise is not None:
            variance += self._limits.noise.ravel()[place[order]] ** 2
        depth = measured.moments[:, 2] / np.abs(self._width[measured.peak[:, 2]]) ** 2
        spread = np.stack([measured.moments[:, 0], measured.moments[:, 1], depth], axis=1)
        widths = np.sqrt(np.maximum(spread, _ROUND))
        start = np.concatenate([measured.intensity[:, None], measured.position, widths], axis=1)
        places = np.stack([row, column, frame], axis=1).astype(np.int64)
        return fit(bounds, places, pixels.values[order], variance, start)

    def finished(self, panel: int, ranks: Ranks) -> Spots:
        """All spots, in order; for rank 0."""
        found = [each for of_rank in ranks.gathered(self._measured) for each in of_rank]
        if not found:
            return none()
        measured = Measured(*(np.concatenate(parts) for parts in zip(*(one for one, _ in found), strict=True)))
        fits = [fitted for _, fitted in found if fitted is not None]
        if fits:
            gaussian, errors, chi2 = self._in_omega(
                Fitted(*(np.concatenate(parts) for parts in zip(*fits, strict=True)))
            )
        else:
            gaussian, errors = (np.full((len(measured.intensity), 7), np.nan) for _ in range(2))
            chi2 = np.full(len(measured.intensity), np.nan)
        frame = measured.position[:, 2]
        if self._where.turn:
            frame = (frame + 0.5) % self._where.turn - 0.5
        spots = Spots(
            panel=np.full(len(frame), panel, np.int16),
            row=measured.position[:, 0],
            column=measured.position[:, 1],
            frame=frame,
            omega=_folded(measured.omega),
            intensity=measured.intensity,
            largest=measured.largest,
            pixels=measured.pixels.astype(np.int32),
            frames=measured.frames.astype(np.int32),
            moments=measured.moments,
            flags=(measured.flags | np.where(np.isfinite(chi2), FITTED, 0)).astype(np.uint8),
            fit=gaussian,
            errors=errors,
            chi2=chi2,
        )
        return spots[np.lexsort(measured.peak.T[[1, 0, 2]])]

    def _in_omega(self, fitted: Fitted) -> tuple[Doubles, Doubles, Doubles]:
        """Fits with omega in the place of the frame."""
        parameters, errors = fitted.parameters.copy(), fitted.errors.copy()
        frame = np.where(np.isfinite(parameters[:, 3]), parameters[:, 3], 0)
        nearest = np.rint(frame).astype(np.int64)
        known = nearest % self._where.turn if self._where.turn else np.clip(nearest, 0, len(self._width) - 1)
        omega = _folded(self._where.omega[known] + (frame - nearest) * self._width[known])
        deep = np.isfinite(errors[:, 3])
        parameters[:, 3] = np.where(deep, omega, np.nan)
        errors[:, 3] *= np.abs(self._width[known])
        parameters[:, 6] *= np.abs(self._width[known])
        errors[:, 6] *= np.abs(self._width[known])
        return parameters, errors, fitted.chi2


def _folded(omega: Doubles) -> Doubles:
    """From -pi to pi."""
    return (omega + np.pi) % (2 * np.pi) - np.pi


def _border(used: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Flags of pixels: at the edge of the detector, beside one that does not count."""
    border = np.zeros(used.shape, np.uint8)
    border[[0, -1]] = EDGE
    border[:, [0, -1]] = EDGE
    if not used.all():
        border[binary_dilation(~used, np.ones((3, 3)))] |= MASKED
    return border
