"""Events that a detector sends one by one, a word each, nearly in the order of their frames.

The words of all formats become words of one kind, frame << 36 | pixel << 12 | count, so that sorting numbers sorts
events. Words that come late by some frames, as read-outs send them, are waited for; how late is found out before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import compiled
from kernels.io.hdf5 import regular
from kernels.xpcs.events import Events
from kernels.xpcs.readers.source import Keep, bad

Words = NDArray[np.uint64]
Translate = Callable[[Words], Words]

FRAME, PIXEL = 36, 12
MOST_COUNT = (1 << PIXEL) - 1
MOST_FRAMES = 1 << 64 - FRAME
_AT_ONCE = 1 << 19
_HELD = 1 << 25  # words; more than these are not waited for
_FRAMES_A_BLOCK = 1 << 16


class Stream:
    """A file of 64-bit words, little-endian.

    `translate` is made anew for each pass and gets the words in order, some at a time; it gives those that are events.

    Attributes
    ----------
    words, events : int
        How many there are.
    frames : int
        One more than the largest number of a frame.
    late : int
        By how many frames an event follows one of a later frame, at most.
    """

    def __init__(self, path: str, translate: Callable[[], Translate]) -> None:
        size = regular(path).st_size
        if size % 8:
            raise bad(path, f"it is truncated: {size} bytes are not whole words of 8. Copy it again.")
        self.path, self._translate = path, translate
        self.words = size // 8
        self.events = self.frames = self.late = 0
        top = 0
        for words in self.pieces():
            self.events += len(words)
            top, late = _order(words, top)
            self.late = max(self.late, late)
            self.frames = top + 1

    def pieces(self) -> Iterator[Words]:
        """The events, in the order of the file."""
        translate = self._translate()
        with open(self.path, "rb") as file:
            left = self.words
            while left:
                words = np.fromfile(file, "<u8", min(left, _AT_ONCE))
                if not len(words):
                    raise bad(self.path, "the file has become shorter while it was read.")
                left -= len(words)
                yield translate(words.astype(np.uint64, copy=False))


class StreamSource:
    """Frames out of streams that are parts of one detector (see `kernels.xpcs.readers.source.Source`).

    Parameters
    ----------
    add : bool
        Whether a pixel's events in a frame add up, as photons sent one by one do; else the first is taken and the
        others are duplicates.
    """

    word: np.dtype[np.unsignedinteger] = np.dtype(np.uint16)
    largest = MOST_COUNT - 1
    anywhere, deep = False, 1

    def __init__(self, name: str, rows: int, columns: int, streams: list[Stream], *, add: bool) -> None:
        self._name, self._streams, self._add = name, streams, add
        self.rows, self.columns = rows, columns
        self.left_out: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self.count = max(stream.frames for stream in streams)
        events = sum(stream.events for stream in streams)
        if self.count > 1000 + 100 * events:
            raise bad(name, f"the last of {events} events is of frame {self.count - 1}. The file is damaged.")

    def blocks(self, wanted: range, keep: Keep) -> Iterator[Events]:
        self.left_out = left_out = dict.fromkeys(("duplicate events", "markers", "frames without events"), 0)
        pieces = [stream.pieces() for stream in self._streams]
        held = [np.empty(0, np.uint64) for _ in pieces]
        whole = [0.0] * len(pieces)  # all events of frames before this have come
        top = [0] * len(pieces)
        done, seen = 0, 0
        while done < len(wanted):
            slowest = int(np.argmin(whole))
            words = next(pieces[slowest], None)
            if words is None:
                whole[slowest] = math.inf
            elif len(words):
                top[slowest], _ = _order(words, top[slowest])
                whole[slowest] = max(whole[slowest], top[slowest] - self._streams[slowest].late)
                held[slowest] = np.concatenate([held[slowest], words])
                if sum(map(len, held)) > _HELD:
                    raise bad(
                        self._name,
                        f"frames are out of order by up to {self._streams[slowest].late}; sort them by frame first.",
                    )
            beyond = min(min(whole), wanted.stop)
            first = wanted[done]
            if beyond <= first:
                continue
            frames = len(range(first, int(beyond), wanted.step))
            ripe = []
            for n, words in enumerate(held):
                now = words < np.uint64(int(beyond) << FRAME)
                ripe.append(words[now])
                held[n] = words[~now]
            sorted_words = np.sort(np.concatenate(ripe), kind="stable")
            starts = np.zeros(frames + 1, np.int64)
            pixels, counts = np.empty(len(sorted_words), np.uint32), np.empty(len(sorted_words), self.word)
            events, twice, marks = _separate(sorted_words, first, wanted.step, keep, self._add, starts, pixels, counts)
            if events < 0:
                raise bad(self._name, f"a pixel counts more than {self.largest} in a frame.")
            left_out["duplicate events"] += twice
            left_out["markers"] += marks
            left_out["frames without events"] += int((np.diff(starts) == 0).sum())
            seen += events
            for some in range(0, frames, _FRAMES_A_BLOCK):
                few = starts[some : some + _FRAMES_A_BLOCK + 1]
                inside = slice(int(few[0]), int(few[-1]))
                yield Events(done + some, few - few[0], pixels[inside], counts[inside])
            done += frames
        if seen < 20 * len(wanted):  # so few that some frames have none by chance
            del left_out["frames without events"]


def sibling(path: str, name: str) -> str:
    """The file `name` beside `path`, which must not be a link out of there.

    Raises
    ------
    KernelError
        Exit 66 when it is missing, 65 when it leads elsewhere.
    """
    beside = Path(path).with_name(name)
    try:
        facts = beside.resolve(strict=True)
    except OSError as error:
        raise bad(path, f"{name!r} is missing beside it.") from error
    if facts.parent != Path(path).resolve().parent:
        raise bad(path, f"{name!r} beside it is a link to another folder.")
    return str(beside)


@compiled()
def _order(words: Words, top: int) -> tuple[int, int]:
    """The largest frame so far, and by how many one comes too late."""
    late = 0
    for word in words:
        frame = int(np.int64(word >> np.uint64(FRAME)))
        late = max(late, top - frame)
        top = max(top, frame)
    return top, late


@compiled()
def _separate(
    words: Words,
    first: int,
    step: int,
    keep: Keep,
    add: bool,
    starts: NDArray[np.int64],
    pixels: NDArray[np.uint32],
    counts: NDArray[np.unsignedinteger],
) -> tuple[int, int, int]:
    """Events of frames first, first + step, …, out of sorted words; how many, duplicates and markers.

    `starts`, shape (frames + 1,), begins as zeros. The first number is -1 when counts add up to more than the word.
    """
    out = twice = marks = 0
    last = np.uint64(0xFFFFFFFFFFFFFFFF)
    taken = False
    for word in words:
        frame = np.int64(word >> np.uint64(FRAME)) - first
        if frame < 0 or frame % step:
            continue
        pixel = np.int64(word >> np.uint64(PIXEL)) & 0xFFFFFF
        count = np.int64(word) & MOST_COUNT
        same = word >> np.uint64(PIXEL) == last
        last = word >> np.uint64(PIXEL)
        if same:
            if not add:
                twice += 1
            elif taken:
                if np.int64(counts[out - 1]) + count >= MOST_COUNT:
                    return -1, 0, 0
                counts[out - 1] += count
            continue
        taken = False
        if count == 0 or not keep[pixel]:
            continue
        if count == MOST_COUNT:
            marks += 1
            continue
        taken = True
        pixels[out] = pixel
        counts[out] = count
        out += 1
        starts[frame // step + 1] += 1
    for n in range(starts.size - 1):
        starts[n + 1] += starts[n]
    return out, twice, marks


def checked_pixels(path: str, pixels: NDArray[np.uint64], rows: int, columns: int) -> None:
    """Refuse pixels that the detector does not have."""
    if len(pixels) and int(pixels.max()) >= rows * columns:
        what = f"an event is in pixel {int(pixels.max())} of a detector of {rows} x {columns}"
        raise bad(path, f"{what}. It is not of this detector, or damaged.")
