"""Multi-tau g2 while the frames come."""

from __future__ import annotations

from kernels.errors import KernelError
from kernels.xpcs.events import Events
from kernels.xpcs.lags import lags
from kernels.xpcs.multitau.result import MultiTau, concluded
from kernels.xpcs.multitau.work import Work
from kernels.xpcs.partition import Partition

HELD_FRAMES = 1024  # so many are taken into the sums at once, which costs less than one by one
HELD_BYTES = 256 << 20
LEVELS = 20  # there is room for from the beginning: 2^20 frames without copying
READY_LEVELS = 12  # of which the memory is there before the first frame


class LiveMultiTau:
    """A g2 that goes on with each block of frames, and is that of all frames so far whenever it is asked for.

    Its sums are those that `multitau` has for these frames, bit for bit. It keeps no frames but the last few, and of
    each pixel about 1.3 kilobytes from the beginning, up to 2.1 for a million frames.
    """

    def __init__(self, partition: Partition, *, per_level: int = 4) -> None:
        if per_level < 1:
            raise KernelError(f"There are {per_level} delays a level; there has to be one at least.")
        self._work = Work(partition, per_level)
        # Getting a gigabyte from the system takes longer than an answer: that is done before anybody waits for one.
        self._work.keep(LEVELS)
        self._work.touch(READY_LEVELS)

    @property
    def frames(self) -> int:
        """How many came so far."""
        return self._work.frames + self._work.held_frames

    def feed(self, events: Events) -> None:
        """Take the frames that follow, one or more. The arrays must stay as they are.

        Raises
        ------
        KernelError
            Exit 65: frames are missing or come twice, or a pixel has more than 2^31 - 1 photons.
        """
        self._work.hold(events)
        if self._work.held_frames >= HELD_FRAMES or self._work.held_bytes >= HELD_BYTES:
            self._prepare()
            self._work.go_on()

    def result(self) -> MultiTau:
        """g2 of the frames so far, of which there must be two."""
        if self.frames < 2:
            raise KernelError(f"There are {self.frames} frames so far; a delay needs two.")
        self._prepare()
        frames, work = self.frames, self._work
        delays = lags(frames, work.per_level)
        return concluded(work.go_on(delays), delays, frames, work.partition)

    def _prepare(self) -> None:
        """Have all levels that will have a value, since those of frames that are gone cannot be had any more."""
        state, levels = self._work.state, self.frames.bit_length()
        if state is None or state.early.shape[1] < levels:
            self._work.keep(levels)
