"""Warnings that stay with a product: what whoever uses it has to know, although it passed its checks.

`Job.warn` takes them; they go out as lines, into `KernelResult` and the manifest, and into those outputs that have room
for them (NeXus, OME-Zarr, corrected scans, from which later kernels take them on).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple


class Code(StrEnum):
    """What a warning is about, for programs."""

    ANGLES = "angles"  # strange, but used as they are
    FLATS = "flats"  # so few that their noise shows
    INVERTED = "dark_above_flat"  # pixels that are brighter without the beam
    BAD_PIXELS = "bad_pixels"  # many were interpolated
    NOT_FINITE = "not_finite"  # counts that are no numbers were mended
    FRAMES = "frames"  # some are lost and were left out
    AXIS = "axis"  # low confidence
    FLOORED = "floored"  # many transmissions below what is taken for the least
    ITERATIONS = "iterations"  # ended before the slices had settled
    METADATA = "metadata"  # missing, or other than what was given
    STRANGE_FRAMES = "strange_frames"  # far from those around them, but used
    CHANGING = "changing_sample"  # while it was measured
    PREVIEW = "preview"  # it could not be written
    SATURATED = "saturated"  # so many spots that their places are less sure
    UNINDEXED = "unindexed"  # most spots belong to no grain
    STRAINED = "strained"  # all grains in the same way: the lattice or the instrument is off
    OUTSIDE = "outside"  # grains were left out since they lie outside of the limits


class Caution(NamedTuple):
    """One warning: its code, and a sentence that says what, where and what to do."""

    code: Code
    sentence: str

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"


def parsed(lines: Iterable[str]) -> Iterator[Caution]:
    """Those that `str` has written; other lines are passed over."""
    for line in lines:
        code, _, sentence = line.partition(": ")
        if sentence and code in {known.value for known in Code}:
            yield Caution(Code(code), sentence)
