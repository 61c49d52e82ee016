"""Spots in frames: thresholds, labelling in three dimensions, moments, Gaussians, and the table of them."""

from kernels.hedm.peaks.measure import CUT, EDGE, MASKED, OVERLAPPED, SATURATED
from kernels.hedm.peaks.search import Found, find_spots
from kernels.hedm.peaks.spots import FITTED, MOMENTS, Spots, joined
from kernels.hedm.peaks.spots_io import read_spots, save_spots, write_spots
from kernels.hedm.peaks.thresholds import limits

__all__ = [
    "CUT",
    "EDGE",
    "FITTED",
    "MASKED",
    "MOMENTS",
    "OVERLAPPED",
    "SATURATED",
    "Found",
    "Spots",
    "find_spots",
    "joined",
    "limits",
    "read_spots",
    "save_spots",
    "write_spots",
]
