"""Timepix4 events, binned into frames of a time of one's choice.

`*.tpx` is taken to be the 64-bit packets of one chip as it sends them, little-endian, both halves in one stream: no
layout of these files is published, and the package that reads them at APS is not either. (So several chips, `.tpx.000`
and following, are not read: how they lie is not known.) Of a packet:

    bit 63      the half of the chip; rows and columns of the upper one are counted from the far end
    55 .. 62    column / 2 (End of Column); from 0xE0 on it is no pixel: 0xE0 is a heartbeat
    46 .. 54    row / 4 as group (4 bits) and superpixel (2), then the pixel (3): its row (2 bits) below column (1)
    30 .. 45    time of arrival, 25 ns, Gray code
    0 .. 54     of a heartbeat: the whole time, 25 ns

X. Llopart et al., J. Instrum. 17 (2022) C01044; the fields are those that EventLoaderTimepix4 of Corryvreckan decodes.
The 16 bits of a pixel's time are those of the time that is nearest to the heartbeat before. Energy is not looked at,
and a photon whose charge is shared by pixels counts in each.
"""

from __future__ import annotations

import numpy as np

from kernels.compiled import compiled
from kernels.errors import KernelError
from kernels.xpcs.readers.source import bad
from kernels.xpcs.readers.streams import FRAME, MOST_FRAMES, PIXEL, Stream, StreamSource, Translate, Words

ROWS, COLUMNS = 512, 448
TICK_S = 25e-9
HEARTBEAT = 0xE0
_BITS = 16


def open_timepix(path: str, frame_time_s: float) -> StreamSource:
    """The events of `*.tpx` as frames of `frame_time_s`, which is made a multiple of 25 ns.

    Raises
    ------
    KernelError
        Exit 66 when the file is missing or empty, 65 when it is truncated, holds no pixel, or more frames than 2^28.
    """
    ticks = round(frame_time_s / TICK_S)
    if ticks < 1:
        raise KernelError(f"A frame of {frame_time_s:g} s is too short for Timepix4: at least 25 ns are needed.")

    def translate() -> Translate:
        state = np.zeros(1, np.int64)

        def some(words: Words) -> Words:
            events = np.empty(len(words), np.uint64)
            found = _decode(words, ticks, state, events)
            if found < 0:
                raise bad(path, "there are more than 2^28 frames: take longer ones, or the file is damaged.")
            return events[:found]

        return some

    stream = Stream(path, translate)
    if not stream.events:
        raise bad(path, "no packet is of a pixel.")
    return StreamSource(path, ROWS, COLUMNS, [stream], add=True)


@compiled()
def _decode(words: Words, ticks: int, state: np.ndarray[tuple[int], np.dtype[np.int64]], events: Words) -> int:
    """Events of packets; `state` holds the last heartbeat. -1 for a frame beyond all numbers."""
    out = 0
    for word in words:
        header = np.int64(word >> np.uint64(55)) & 0xFF
        if header >= HEARTBEAT:
            if header == HEARTBEAT:
                state[0] = np.int64(word & np.uint64((1 << 55) - 1))
            continue
        gray = np.int64(word >> np.uint64(30)) & 0xFFFF
        gray ^= gray >> 8
        gray ^= gray >> 4
        gray ^= gray >> 2
        gray ^= gray >> 1
        apart = (gray - state[0]) & 0xFFFF
        time = state[0] + apart - (1 << _BITS if apart >= 1 << _BITS - 1 else 0)
        if time < 0:
            time += 1 << _BITS
        pixel = np.int64(word >> np.uint64(46)) & 7
        column = header << 1 | pixel >> 2
        row = (np.int64(word >> np.uint64(49)) & 63) << 2 | pixel & 3
        if word >> np.uint64(63):
            column, row = COLUMNS - 1 - column, ROWS - 1 - row
        frame = time // ticks
        if frame >= MOST_FRAMES:
            return -1
        events[out] = np.uint64(frame) << np.uint64(FRAME) | np.uint64(row * COLUMNS + column) << np.uint64(PIXEL)
        events[out] |= np.uint64(1)
        out += 1
    return out
