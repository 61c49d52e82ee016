"""Multi-tau g2 of a series of frames, whole or while they come."""

from kernels.xpcs.multitau.batch import multitau, takers
from kernels.xpcs.multitau.live import LiveMultiTau
from kernels.xpcs.multitau.result import MultiTau

__all__ = ["LiveMultiTau", "MultiTau", "multitau", "takers"]
