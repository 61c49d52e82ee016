"""What the tests of frames share: small series, written in any format and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.xpcs.events import Events
from kernels.xpcs.writers import FORMATS, files_of, laid_out, write_frames

SHAPES = {"rigaku-500k": (512, 1024), "rigaku-3m": (1676, 2100), "timepix4": (512, 448)}
TIME_S = 1e-6


def some_frames(form: str, count: int = 13, seed: int = 1) -> NDArray[np.uint8]:
    """A few counts in each frame, none in one of them; none where a detector has gaps."""
    rows, columns = SHAPES.get(form, (7, 9))
    random = np.random.default_rng(seed)
    shown = np.zeros((count, rows * columns), np.uint8)
    for frame in shown:
        frame[random.choice(frame.size, 12, replace=False)] = random.integers(1, 6, 12)
    shown[4] = 0
    if form == "rigaku-3m":
        laid = shown.reshape(count, rows, columns)
        laid[:, 512:582] = laid[:, 1094:1164] = 0
        laid[:, :, 1024:1076] = 0
    return shown


def events_of(shown: NDArray[Any], blocks: int = 3) -> list[Events]:
    """Frames as events, in several blocks."""
    found = []
    for numbers in np.array_split(np.arange(len(shown)), blocks):
        frame, pixel = np.nonzero(shown[numbers])
        starts = np.searchsorted(frame, np.arange(len(numbers) + 1))
        counts = shown[numbers][frame, pixel]
        found.append(Events(int(numbers[0]), starts, pixel.astype(np.uint32), counts.astype(np.uint32)))
    return found


def written(folder: Path, form: str, shown: NDArray[Any], **how: Any) -> str:
    """Frames in a file of this format; its path."""
    rows, columns = SHAPES.get(form, (7, 9))
    parts = files_of(folder / f"run{FORMATS[form]}", form)
    how = {"rows": rows, "columns": columns, "frames": len(shown), "frame_time_s": TIME_S} | how
    write_frames(parts, form, events_of(shown), **how)
    return str(parts[0])


def read(chosen: Any) -> NDArray[Any]:
    """All frames laid out, after a look at whether the events are as they should be."""
    pixels = chosen.rows * chosen.columns
    shown = np.zeros((chosen.count, pixels), chosen.word)
    done = 0
    for events in chosen.blocks():
        assert events.first == done
        assert len(events.pixels) == len(events.counts) == events.starts[-1]
        assert events.starts[0] == 0
        assert events.starts.dtype == np.int64
        assert events.pixels.dtype == np.uint32
        for n in range(events.frames):
            assert (np.diff(events.pixels[events.starts[n] : events.starts[n + 1]].astype(int)) > 0).all()
        assert len(events.counts) == 0 or 1 <= events.counts.min() <= events.counts.max() <= chosen.largest
        shown[done : done + events.frames] = laid_out(events, pixels, chosen.word)
        done += events.frames
    assert done == chosen.count
    return shown
