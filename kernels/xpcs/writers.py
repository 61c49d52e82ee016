"""Write events in each of the formats that `kernels.xpcs.readers` reads, a block at a time.

Counts that a format's word does not hold are refused; so is its largest value, which means that a pixel does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError
from kernels.io.nexus import new_file
from kernels.outputs import io_error
from kernels.xpcs.events import Events
from kernels.xpcs.readers import imm, rigaku, timepix
from kernels.xpcs.readers.hdf5 import DATA

FORMATS = {  # name: ending
    "hdf5": ".h5",
    "rigaku-500k": ".bin",
    "rigaku-3m": ".bin.000",
    "imm": ".imm",
    "imm-dense": ".imm",
    "timepix4": ".tpx",
}
_SHAPES = {
    "rigaku-500k": (rigaku.ROWS, rigaku.COLUMNS),
    "rigaku-3m": rigaku.SHAPE_3M,
    "timepix4": (timepix.ROWS, timepix.COLUMNS),
}
_MODULES = len(rigaku.ORDER)


def files_of(path: str | Path, form: str) -> list[Path]:
    """The files that frames in this format are: `path`, which is the first of six for `rigaku-3m`."""
    path = Path(path)
    if form != "rigaku-3m":
        return [path]
    return [path.with_name(f"{path.name.removesuffix('.000')}.{n:03d}") for n in range(_MODULES)]


def check_shape(form: str, rows: int, columns: int) -> None:
    """Refuse a format that is unknown, or whose detector is of another shape (exit 2)."""
    if form not in FORMATS:
        raise KernelError(f"There is no format {form!r}; known are {', '.join(FORMATS)}.")
    shape = _SHAPES.get(form, (rows, columns))
    if (rows, columns) != shape:
        raise KernelError(f"The detector of {form} is of {shape[0]} x {shape[1]} pixels, not {rows} x {columns}.")


def write_frames(
    parts: list[Path],
    form: str,
    blocks: Iterable[Events],
    *,
    rows: int,
    columns: int,
    frames: int,
    frame_time_s: float = 1.0,
    word: Any = np.uint16,
    how: dict[str, Any] | None = None,
) -> None:
    """Write blocks of events, in order, to the files of a format (see `files_of`), which are made anew.

    Parameters
    ----------
    rows, columns, frames : int
        What there is in all.
    frame_time_s : float
        Into which time of a frame photons are put (`timepix4`).
    word : dtype
        Unsigned whole numbers of 8, 16 or 32 bits (`hdf5`).
    how : dict, optional
        Arguments of h5py's `create_dataset`: chunks and compression (`hdf5`). Not given: a frame a chunk, bitshuffle
        and LZ4.

    Raises
    ------
    KernelError
        Exit 2 for an unknown format or a detector that it has not, 65 for counts beyond its word, 74 when
        writing fails.
    """
    check_shape(form, rows, columns)
    if form == "hdf5":
        _write_hdf5(parts[0], blocks, (frames, rows, columns), np.dtype(word), how)
    elif form in ("imm", "imm-dense"):
        _write_imm(parts[0], blocks, rows, columns, sparse=form == "imm")
    elif form == "timepix4":
        _write_timepix(parts[0], blocks, frame_time_s)
    else:
        _write_rigaku(parts, blocks, columns)


def laid_out(events: Events, pixels: int, word: Any) -> NDArray[Any]:
    """The frames of events, shape (frames, pixels)."""
    frames = np.zeros((events.frames, pixels), word)
    frames[np.repeat(np.arange(events.frames), np.diff(events.starts)), events.pixels] = events.counts
    return frames


def _write_hdf5(
    path: Path, blocks: Iterable[Events], shape: tuple[int, int, int], word: np.dtype[Any], how: dict[str, Any] | None
) -> None:
    if how is None:
        how = {"chunks": (1, *shape[1:]), **hdf5plugin.Bitshuffle(cname="lz4")}
    pixels = shape[1] * shape[2]
    some = max(1, (1 << 24) // pixels)
    with new_file(path) as file:
        dataset = file.create_dataset(DATA, shape, word, **how)
        file.attrs["default"] = "entry"
        file["entry"].attrs.update({"NX_class": "NXentry", "default": "data"})
        file["entry/data"].attrs.update({"NX_class": "NXdata", "signal": "data"})
        for events in blocks:
            _check_counts(events, np.iinfo(word).max - 1)
            for first in range(0, events.frames, some):
                here = events.starts[first : first + some + 1]
                inside = slice(int(here[0]), int(here[-1]))
                few = Events(0, here - here[0], events.pixels[inside], events.counts[inside])
                at = events.first + first
                dataset[at : at + few.frames] = laid_out(few, pixels, word).reshape(-1, *shape[1:])


def _write_rigaku(parts: list[Path], blocks: Iterable[Events], columns: int) -> None:
    with _opened(parts) as files:
        for events in blocks:
            _check_counts(events, (1 << 12) - 2)
            frames = np.repeat(np.arange(events.first, events.first + events.frames), np.diff(events.starts))
            words = (frames << 40).astype(np.uint64) | events.counts.astype(np.uint64)
            if len(files) == 1:
                _put(files[0], words | events.pixels.astype(np.uint64) << np.uint64(16))
                continue
            row, column = np.divmod(events.pixels.astype(np.int64), columns)
            for place, ending in enumerate(rigaku.ORDER):
                top, left = np.divmod(rigaku.corner_of(place), columns)
                y, x = row - top, column - left
                mine = (y >= 0) & (y < rigaku.ROWS) & (x >= 0) & (x < rigaku.COLUMNS)
                pixels = (y[mine] * rigaku.COLUMNS + x[mine]).astype(np.uint64)
                _put(files[ending], words[mine] | pixels << np.uint64(16))


def _write_imm(path: Path, blocks: Iterable[Events], rows: int, columns: int, *, sparse: bool) -> None:
    with _opened([path]) as (file,):
        for events in blocks:
            _check_counts(events, (1 << 15) - 1 if sparse else (1 << 16) - 2)
            for n in range(events.frames):
                inside = slice(int(events.starts[n]), int(events.starts[n + 1]))
                pixels, counts = events.pixels[inside], events.counts[inside].astype("<u2")
                header = bytearray(imm.HEADER)
                length = len(pixels) if sparse else rows * columns
                kind = imm.SPARSE if sparse else 0
                for at, value in ((0, 2), (4, kind), (108, rows), (112, columns), (116, 2), (152, length)):
                    header[at : at + 4] = value.to_bytes(4, "little")
                header[160:164] = (events.first + n).to_bytes(4, "little")
                file.write(header)
                if sparse:
                    _put(file, pixels.astype("<i4"))
                    _put(file, counts)
                else:
                    frame = np.zeros(rows * columns, "<u2")
                    frame[pixels] = counts
                    _put(file, frame)


def _write_timepix(path: Path, blocks: Iterable[Events], frame_time_s: float) -> None:
    ticks = round(frame_time_s / timepix.TICK_S)
    every = 1 << 14  # ticks from one heartbeat to the next
    beat = 0
    with _opened([path]) as (file,):
        for events in blocks:
            _check_counts(events, (1 << 12) - 2)
            counts = events.counts.astype(np.int64)
            pixels = np.repeat(events.pixels.astype(np.int64), counts)
            frames = np.repeat(np.arange(events.first, events.first + events.frames), np.diff(events.starts))
            times = np.repeat(frames, counts) * ticks + ticks // 2
            row, column = np.divmod(pixels, timepix.COLUMNS)
            top = row >= timepix.ROWS // 2
            row, column = (
                np.where(top, timepix.ROWS - 1 - row, row),
                np.where(top, timepix.COLUMNS - 1 - column, column),
            )
            toa = times & 0xFFFF
            packets = top.astype(np.uint64) << np.uint64(63)
            for field, shift in (
                (column >> 1, 55),
                (row >> 2, 49),
                ((column & 1) << 2 | row & 3, 46),
                (toa ^ toa >> 1, 30),
            ):
                packets |= field.astype(np.uint64) << np.uint64(shift)
            last = (events.first + events.frames) * ticks
            beats = np.arange(beat, last + 1, every)
            beat = int(beats[-1]) + every if len(beats) else beat
            words = np.concatenate([np.uint64(timepix.HEARTBEAT << 55) | beats.astype(np.uint64), packets])
            order = np.argsort(np.concatenate([beats, times]), kind="stable")
            _put(file, words[order])


def _check_counts(events: Events, largest: int) -> None:
    if len(events.counts) and int(events.counts.max()) > largest:
        at = int(events.counts.argmax())
        frame = events.first + int(np.searchsorted(events.starts, at, "right")) - 1
        raise KernelError(
            f"Pixel {int(events.pixels[at])} counts {int(events.counts[at])} in frame {frame}; this format's word "
            f"holds {largest} at most.",
            Exit.BAD_INPUT,
        )


def _put(file: BinaryIO, values: NDArray[Any]) -> None:
    file.write(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())


@contextmanager
def _opened(parts: list[Path]) -> Iterator[list[BinaryIO]]:
    files: list[BinaryIO] = []
    try:
        files.extend(part.open("wb") for part in parts)
        yield files
        for file in files:
            file.close()
    except OSError as error:
        raise io_error(error, f"Cannot write {str(parts[0])!r}") from error
    finally:
        for file in files:
            file.close()
