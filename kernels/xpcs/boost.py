"""Multi-tau g2 by boost-corr, where it is installed: for those who compare, or have its GPU code.

https://github.com/AZjk/boost_corr. Its `MultitauCorrelator` is given whole frames in memory: its own reader of HDF5
reuses a buffer before it is read (0.1.7). Sums are of float32 at most, so that g2 agrees to about 1e-6.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import devices
from kernels.errors import KernelError
from kernels.xpcs.events import Frames
from kernels.xpcs.lags import Lags, lags
from kernels.xpcs.multitau import MultiTau
from kernels.xpcs.partition import Partition

Floats = NDArray[np.float64]

_AT_ONCE = 8  # frames; its queues are powers of two above that
_LARGEST = 1 << 24  # no count above is exact in its buffers


def multitau(frames: Frames, partition: Partition, *, memory_bytes: int, gpu: bool = True) -> MultiTau:
    """g2 of all dynamic bins by boost-corr, with 4 delays a level; with `gpu` on one if this process has one.

    Raises
    ------
    KernelError
        Exit 2 when boost-corr is not installed.
    """
    if importlib.util.find_spec("boost_corr") is None or importlib.util.find_spec("torch") is None:
        raise KernelError("boost-corr is not installed here: pip install boost-corr, or take backend native.")
    torch = importlib.import_module("torch")
    correlator = importlib.import_module("boost_corr").MultitauCorrelator(
        (frames.rows, frames.columns),
        frames.count,
        device="cuda:0" if gpu and devices.visible() and torch.cuda.is_available() else "cpu",
        mask_crop=torch.from_numpy(partition.pixels.astype(np.int64)),
        max_memory=memory_bytes / 1e9,
        max_count=_LARGEST,  # so that its buffers are float32: those for small counts are bfloat16
    )
    for batch in _batches(frames, partition):
        correlator.process(torch.from_numpy(batch).to(correlator.device))
    correlator.post_process()
    _, found = correlator.get_results()
    delays = np.asarray(found["tau"], np.int64)
    means = found["G2"].cpu().numpy().astype(float)
    order = np.argsort(delays)
    return _concluded(delays[order], means[order], frames.count, partition)


def _batches(frames: Frames, partition: Partition) -> Iterator[NDArray[np.float32]]:
    """The pixels of all bins, some frames at a time."""
    place = np.full(frames.rows * frames.columns, -1, np.int64)
    place[partition.pixels] = np.arange(len(partition.pixels))
    batch = np.zeros((_AT_ONCE, len(partition.pixels)), np.float32)
    filled = 0
    for events in frames.blocks():
        for n in range(events.frames):
            mine = slice(events.starts[n], events.starts[n + 1])
            where = place[events.pixels[mine]]
            batch[filled, where[where >= 0]] = events.counts[mine][where >= 0]
            filled += 1
            if filled == _AT_ONCE:
                yield batch
                batch, filled = np.zeros_like(batch), 0
    if filled:
        yield batch[:filled]


def _concluded(delays: NDArray[np.int64], means: Floats, frames: int, partition: Partition) -> MultiTau:
    """g2 from the mean products and means of earlier and later frames of each pixel, (delays, 3, pixels)."""
    sizes = np.diff(partition.bounds)
    static = np.add.reduceat(means, partition.bounds[:-1], axis=2) / sizes
    below = static[:, 1] * static[:, 2]
    partial = np.divide(static[:, 0], below, out=np.zeros_like(below), where=below > 0)
    below = means[:, 1] * means[:, 2]
    single = np.divide(means[:, 0], below, out=np.zeros_like(below), where=below > 0)
    bins = range(1, partition.dynamic_bins + 1)
    dynamic = np.repeat(partition.owner, sizes)
    g2 = np.stack([partial[:, partition.owner == n].mean(1) for n in bins], axis=1)
    ours = lags(frames)
    same = np.array_equal(delays, ours.frames)
    return MultiTau(
        ours if same else Lags(delays, np.zeros_like(delays)),
        frames,
        g2,
        np.stack([_error(single[:, dynamic == n]) for n in bins], axis=1),
        partial,
        np.stack([_error(part) for part in np.split(single, partition.bounds[1:-1], axis=1)], axis=1),
        np.zeros((0, len(delays), 8), np.int64),
    )


def _error(values: Floats) -> Any:
    pixels = values.shape[1]
    return values.std(axis=1, ddof=1) / np.sqrt(pixels) if pixels > 1 else np.full(len(values), np.nan)
