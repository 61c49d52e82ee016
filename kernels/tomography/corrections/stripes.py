"""Stripes of a sinogram, which are rings of a slice: what a detector column adds by itself.

All functions take sinograms of line integrals, (rows, angles, columns) float32 and finite, and return new ones of the
same shape. What they do to a sinogram without stripes is said with each; none is free of harm, so the gentlest that
removes the rings is the right one:

================================  ==================================  =======================================
what the stripes are              which                               what it may harm
================================  ==================================  =======================================
constant over the scan, narrow    `remove_constant_stripes`           rings of the object about the axis
constant or slowly changing       `remove_slow_stripes`               the same, and what turns slowly
over a part of the angles         `remove_partial_stripes`            what is narrow and turns slowly
wide and strong                   `remove_large_stripes`              nothing but the columns it picks
dead, stuck or flickering         `remove_dead_stripes`               nothing but the columns it picks
all of the last three             `remove_all_stripes`                their sum
================================  ==================================  =======================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from kernels.tomography.corrections.columns import remove_dead_stripes, remove_large_stripes
from kernels.tomography.corrections.offsets import (
    remove_constant_stripes,
    remove_partial_stripes,
    remove_slow_stripes,
)

__all__ = [
    "STRIPES",
    "remove_all_stripes",
    "remove_constant_stripes",
    "remove_dead_stripes",
    "remove_large_stripes",
    "remove_partial_stripes",
    "remove_slow_stripes",
]

Floats = NDArray[np.float32]


def remove_all_stripes(
    sinograms: Floats, *, snr: float = 3.0, large_width: int | None = None, small_width: int | None = None
) -> Floats:
    """Dead and flickering stripes, then large ones (Vo et al., 2018), then what stays over a part of the angles.

    Parameters as in `remove_dead_stripes`, `remove_large_stripes` (large_width) and `remove_partial_stripes`
    (small_width); so are harm and errors.
    """
    without = remove_dead_stripes(sinograms, snr=snr, width=large_width)
    without = remove_large_stripes(without, snr=snr, width=large_width)
    return remove_partial_stripes(without, width=small_width)


STRIPES: Mapping[str, Callable[..., Floats]] = MappingProxyType(
    {
        "constant": remove_constant_stripes,
        "slow": remove_slow_stripes,
        "partial": remove_partial_stripes,
        "large": remove_large_stripes,
        "dead": remove_dead_stripes,
        "all": remove_all_stripes,
    }
)
