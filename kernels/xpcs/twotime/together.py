"""A two-time correlation that several ranks work out together, and that the first of them writes.

Work is shared out by strips, rows of tiles of a bin, in runs of about equal cost: a rank needs the counts of its own
bins alone, so that memory is shared out too, and a bin may have several ranks. The others send their tiles to the
first, which takes them between its own; a few of each are on their way at a time. Each strip has the same bits whoever
works it out, so the result is that of one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.ranks import Ranks
from kernels.xpcs.partition import Partition
from kernels.xpcs.twotime.correlate import TILE, Device, Found, OneTime, Strip, Way, Write, correlate, strips
from kernels.xpcs.twotime.multitau import MultiTau
from kernels.xpcs.twotime.series import Series
from kernels.xpcs.twotime.slices import Slice
from kernels.xpcs.twotime.sums import Floats


class Plan(NamedTuple):
    """What of a two-time correlation each rank works out.

    Attributes
    ----------
    bins : ndarray, shape (bins,), int64
        Numbers of all dynamic bins that are to be correlated, ascending.
    frames : int
        How many there are.
    tile : int
        Frames along a side of a tile.
    strips : list of list of Strip
        Those of each rank, those of a bin one after another.
    """

    bins: NDArray[np.int64]
    frames: int
    tile: int
    strips: list[list[Strip]]

    def bins_of(self, rank: int) -> list[int]:
        """The dynamic bins whose counts the rank needs, ascending."""
        return sorted({strip.bin for strip in self.strips[rank]})

    def takers(self, partition: Partition) -> NDArray[np.int16]:
        """The ranks that need the counts of each pixel, as `kernels.xpcs.exchange` has them."""
        of_bin = np.zeros((partition.dynamic_bins + 1, 2), np.int16)
        for rank in range(len(self.strips)):
            for number in self.bins_of(rank):
                of_bin[number] = of_bin[number, 0] if of_bin[number, 1] else rank, rank + 1
        return of_bin[partition.dynamic.ravel()]


def planned(bins: NDArray[np.int64], costs: Floats, frames: int, size: int, tile: int = TILE) -> Plan:
    """Runs of strips for so many ranks, each of about equal cost; `costs` are those of the bins."""
    todo = strips(bins, frames, tile)
    firsts = np.array([strip.first for strip in todo])
    rest = (frames - firsts).astype(float)
    areas = (rest**2 - np.maximum(rest - tile, 0) ** 2) / frames**2
    loads = areas * np.maximum(np.repeat(costs, len(todo) // len(bins)), 1e-9)
    middles = np.cumsum(loads) - loads / 2
    owners = np.minimum(middles / loads.sum() * size, size - 1).astype(int)
    owners = np.unique(owners, return_inverse=True)[1]  # ranks without any are the last
    shares = [[strip for strip, owner in zip(todo, owners, strict=True) if owner == rank] for rank in range(size)]
    return Plan(bins, frames, tile, shares)


def twotime_together(
    series: Series | None,
    plan: Plan,
    write: Write,
    ranks: Ranks,
    *,
    slices: Sequence[Slice] = (),
    way: Way | None = None,
    gpu: Device | None = None,
) -> OneTime | None:
    """`kernels.xpcs.twotime.correlate.twotime` by all ranks: rank 0 writes all tiles, in no certain order, and has the
    result; for the others it is None.

    `series` is of the bins that this rank needs by the `plan`, or None where there are none; `gpu` has been made ready
    for it.
    """
    mine, tile = plan.strips[ranks.rank], plan.tile
    if not ranks.first:
        if series is not None:
            correlate(series, mine, _giving(ranks), _giving(ranks), slices=slices, way=way, tile=tile, gpu=gpu)
        ranks.see_off()
        return None
    found = Found(plan.bins, plan.frames, slices, tile)
    # Of each strip its tiles come, and its sums.
    coming = sum(1 + -(-(plan.frames - strip.first) // tile) for share in plan.strips[1:] for strip in share)

    def take_what_came() -> None:
        nonlocal coming
        for what in ranks.received():
            coming -= 1
            if isinstance(what[0], Strip):
                found.take(*what)
            else:
                write(*what)

    def write_own(*made: Any) -> None:
        write(*made)
        take_what_came()

    if series is not None:
        correlate(series, mine, write_own, found.take, slices=slices, way=way, tile=tile, gpu=gpu)
    while coming:
        take_what_came()
        if coming:
            ranks.nap()
    return found.one_time


def _giving(ranks: Ranks) -> Callable[..., None]:
    return lambda *what: ranks.give(what)


def together(found: MultiTau | None, ranks: Ranks) -> MultiTau | None:
    """Correlations by delay of all ranks' bins, for the first of them; None for the others. A rank without bins brings
    None."""
    parts = [part for part in ranks.gathered(found) if part is not None]
    if not parts:
        return None
    bins = np.concatenate([part.bins for part in parts])
    order = np.argsort(bins)
    values = [np.concatenate(each)[order] for each in zip(*(part.values for part in parts), strict=True)]
    return MultiTau(bins[order], parts[0].lags, tuple(values))
