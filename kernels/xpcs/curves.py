"""The g2 of a result file, ours or another's in the same layout, with what the curves are of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.io import hdf5
from kernels.xpcs.partition import Axis

Floats = NDArray[np.float64]

_FRAME_TIME = "/entry/instrument/detector_1/frame_time"
_NEIGHBOURS = 11  # delays over which the scatter of slices is taken together


class Curves(NamedTuple):
    """g2 of the dynamic bins.

    Attributes
    ----------
    delay_s : ndarray, shape (delays,)
        Ascending, above 0.
    g2, g2_err : ndarray, shape (delays, bins)
        NaN where it is not known.
    bins : ndarray, shape (bins,), int64
        Numbers of the dynamic bins, from 1.
    q : ndarray, shape (bins,)
        Along the first axis of the qmap; NaN where there is none.
    q_unit : str
    labels : list of str
        What each bin is called.
    other : ndarray, shape (bins,), int64
        The step along the second axis, such as phi.
    """

    delay_s: Floats
    g2: Floats
    g2_err: Floats
    bins: NDArray[np.int64]
    q: Floats
    q_unit: str
    labels: list[str]
    other: NDArray[np.int64]


def read_curves(path: str) -> Curves:
    """The multi-tau g2 of a result file or, where it has none, that of its two-time correlations.

    Of two-time correlations of all frames no errors are stored: they are taken from the scatter among slices, smoothed
    over neighbouring delays; beyond the length of a slice it is taken to go on as it was.

    Raises
    ------
    KernelError
        Exit 66 for a missing file, 65 for one that is no result of XPCS.
    """
    with hdf5.open_file(path) as file:
        kind = next((k for k in ("multitau", "twotime") if hdf5.found(file, f"/xpcs/{k}/normalized_g2")), None)
        if kind is None:
            raise KernelError(
                f"The input {path!r} holds no g2: neither /xpcs/multitau/normalized_g2 nor that of /xpcs/twotime.",
                Exit.BAD_INPUT,
            )
        g2 = np.asarray(hdf5.numbers(file, f"/xpcs/{kind}/normalized_g2", rank=2)[()], float)
        delay = _list(file, f"/xpcs/{kind}/delay_list")
        step = _number(file, _FRAME_TIME)
        for name in ("stride_frame", "avg_frame"):
            step *= _number(file, f"/xpcs/{kind}/config/{name}")
        if len(delay) != len(g2):
            raise KernelError(f"The input {path!r} has {len(delay)} delays and g2 at {len(g2)}.", Exit.BAD_INPUT)
        if kind == "multitau" or hdf5.found(file, f"/xpcs/{kind}/normalized_g2_err"):
            err = np.asarray(hdf5.numbers(file, f"/xpcs/{kind}/normalized_g2_err", rank=2)[()], float)
        else:
            slices = np.asarray(hdf5.numbers(file, "/xpcs/twotime/normalized_g2_segments", rank=3)[()], float)
            err = _scatter(slices, len(g2))
        bins = np.arange(1, g2.shape[1] + 1)
        if kind == "twotime":
            bins = _list(file, "/xpcs/twotime/processed_bins").astype(np.int64)
        if err.shape != g2.shape or len(bins) != g2.shape[1]:
            raise KernelError(f"In the input {path!r} g2, its errors and its bins do not fit together.", Exit.BAD_INPUT)
        q, unit, labels, other = _bins(file, bins)
    later = delay > 0
    return Curves(delay[later] * step, g2[later], err[later], bins, q, unit, labels, other)


def bin_labels(axes: Sequence[Axis], steps: NDArray[np.integer]) -> list[str]:
    """What dynamic bins are called that are these steps along the axes (see `Partition`)."""
    second = axes[1].dynamic if len(axes) > 1 else np.zeros(1)
    names = []
    for along, other in zip(*np.divmod(steps, len(second)), strict=True):
        name = f"{axes[0].name} = {axes[0].dynamic[along]:.4g} {axes[0].unit}"
        names.append(f"{name}, {axes[1].name} = {second[other]:.4g} {axes[1].unit}" if len(second) > 1 else name)
    return names


def _scatter(slices: Floats, delays: int) -> Floats:
    """Errors of g2, shape (delays, bins), from the scatter among its slices (delays of a slice, slices, bins).

    A mean of n pairs of frames scatters as 1/n: the slices say by how much, and g2 of all frames has more pairs.
    """
    long, count, bins = slices.shape
    if count < 2 or long < 2:
        return np.full((delays, bins), np.nan)
    pairs = long - np.arange(long)
    single = slices.var(axis=1, ddof=1) * pairs[:, None]
    half = _NEIGHBOURS // 2
    smooth = [np.nanmean(single[max(1, n - half) : n + half + 1], axis=0) for n in range(long)]
    squares = np.concatenate([smooth, np.broadcast_to(smooth[-1], (max(0, delays - long), bins))])[:delays]
    return np.asarray(np.sqrt(squares / (delays - np.arange(delays))[:, None]))


def _bins(file: h5py.File, bins: NDArray[np.int64]) -> tuple[Floats, str, list[str], NDArray[np.int64]]:
    """Of each bin its place along the first axis, that one's unit, its name, and its step along the second."""
    index = hdf5.found(file, "/xpcs/qmap/dynamic_index_mapping")
    lists = [hdf5.found(file, f"/xpcs/qmap/dynamic_v_list_dim{n}") for n in (0, 1)]
    names, units = (_words(file, f"/xpcs/qmap/map_{what}") for what in ("names", "units"))
    none = np.full(len(bins), np.nan), "", [f"bin {n}" for n in bins], np.zeros(len(bins), np.int64)
    if index is None or any(values is None for values in lists) or len(names) < 2 or len(units) < 2:
        return none
    first, second = (np.asarray(values[()], float).ravel() for values in lists if values is not None)
    steps = np.asarray(index[()], np.int64).ravel()
    if bins.min() < 1 or bins.max() > len(steps) or not len(second) or steps.max() >= len(first) * len(second):
        return none
    along, other = np.divmod(steps[bins - 1], len(second))
    axes = [Axis(names[n], units[n], values, values) for n, values in enumerate((first, second))]
    labels = bin_labels(axes, steps[bins - 1])
    q = first[along] if names[0] == "q" else np.full(len(bins), np.nan)
    return q, units[0], labels, other


def _list(file: h5py.File, path: str) -> Floats:
    dataset = hdf5.found(file, path)
    if dataset is None or dataset.dtype.kind not in "iuf":
        raise KernelError(f"The input {file.filename!r} has no numbers at {path}.", Exit.BAD_INPUT)
    return np.asarray(dataset[()], float).ravel()


def _number(file: h5py.File, path: str) -> float:
    values = _list(file, path)
    if len(values) != 1 or not 0 < values[0] < np.inf:
        raise KernelError(f"In the input {file.filename!r} {path} is not one number above 0.", Exit.BAD_INPUT)
    return float(values[0])


def _words(file: h5py.File, path: str) -> list[str]:
    dataset = hdf5.found(file, path)
    if dataset is None or dataset.ndim != 1 or dataset.dtype.kind not in "OS":
        return []
    return [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in dataset[()]]
