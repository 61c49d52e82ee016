"""What a counting detector has seen: which pixels counted how much in which frame, and nothing of those that did not.

A pixel is named by its number, `row * columns + column`. At the occupancies of XPCS, a per cent or so, events are a
hundredth of what frames are, and what is worked out from them takes as much less time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Events(NamedTuple):
    """The counts of frames that follow each other, frame by frame.

    Attributes
    ----------
    first : int
        Number of the first frame in its series, from 0.
    starts : ndarray, shape (frames + 1,), int64
        Where the events of each frame begin in the two others; the last is where they end.
    pixels : ndarray, shape (events,), uint32
        Numbers of the pixels, ascending within a frame, each at most once.
    counts : ndarray, shape (events,), uint8, uint16 or uint32
        Photons, at least 1.
    """

    first: int
    starts: NDArray[np.int64]
    pixels: NDArray[np.uint32]
    counts: NDArray[np.unsignedinteger]

    @property
    def frames(self) -> int:
        return len(self.starts) - 1


class Frames(Protocol):
    """A series of frames, read from its beginning to its end, some at a time, in bounded memory.

    What was chosen (range, stride, average of neighbours) and what does not count (pixels that are dead or hot) is
    dealt with already: `count` frames `frame_time_s` apart are left.
    """

    rows: int
    columns: int
    count: int
    frame_time_s: float
    largest: int  # no count is larger

    def blocks(self) -> Iterator[Events]:
        """All frames in order, each once; as often as it is asked for. The arrays of a block stay as they are."""
