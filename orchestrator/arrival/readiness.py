"""Whether a file is whole, as a pure rule over what was observed.

Whole means: settled, and closed by its writer as far as that can be seen, and whatever else its rule asks for is there:
a sentinel beside it, a marker at its end, the declared number of frames, the marks of its layout, all its parts. A file
that opens well proves nothing: one whose writer died may hold half its frames.

The rule says what it wants to know next (`Verdict.ask`), so that the dear questions are asked of few files.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from orchestrator.arrival.contents import Contents, Question

UNSEEN_S = 30.0  # a file whose writer cannot be seen must be still for so long when nothing else proves it whole
DX_DATA, DX_THETA = "/exchange/data", "/exchange/theta"
DX_FLAT, DX_DARK = "/exchange/data_white", "/exchange/data_dark"


class Layout(StrEnum):
    NONE = ""
    NEXUS = "nexus"  # every NXentry has its end_time
    DXCHANGE = "dxchange"  # as many projections as angles, and flats and darks


class Need(Struct, frozen=True):
    """What a rule asks of a file before it is whole."""

    settle_s: float = 0.2
    closed: bool = True
    sentinel: str = ""  # name of another file, with {stem} and {name}
    end_marker: str = ""  # the text that the file ends with
    frames: str = ""  # path of the dataset whose first axis counts
    expected: int | str = 0  # how many; or the path, or path@attribute, that says so
    layout: Layout = Layout.NONE
    flats: bool = True  # DXchange: flats and darks must be there
    opens: bool = False  # it can be opened as HDF5, and no writer has marked it as open
    parts: bool = False  # it is whole only with other files
    patience_s: float = 600.0  # after so long without a change it is listed as incomplete
    empty: bool = False  # a file without a byte may be whole

    @property
    def question(self) -> Question | None:
        """What to ask of its contents; None when nothing is to be."""
        values = (self.expected,) if isinstance(self.expected, str) and self.expected else ()
        shapes = (self.frames,) if self.frames else ()
        if self.layout is Layout.DXCHANGE:
            shapes = (*shapes, DX_DATA, DX_THETA, DX_FLAT, DX_DARK)
        nexus = self.layout is Layout.NEXUS
        return Question(values, shapes, entries=nexus) if values or shapes or nexus or self.opens else None


class Ask(StrEnum):
    WRITER = "writer"
    SENTINEL = "sentinel"
    TAIL = "tail"
    PARTS = "parts"
    CONTENTS = "contents"


class Facts(Struct, frozen=True):
    """What is known of a file. None: not asked yet."""

    size: int
    still_s: float  # since when we have seen it unchanged, by our own clock that never steps
    writer_asked: bool = False
    writer: bool | None = None  # None: it cannot be told
    sentinel: bool | None = None
    tail: bool | None = None  # it ends with the marker
    lacking: str | None = None  # what of its parts is not there or not whole; empty: nothing
    contents: Contents | None = None


class Verdict(Struct, frozen=True):
    """Whole; or not, with the reason; or it depends on `ask`."""

    whole: bool = False
    reason: str = ""
    ask: Ask | None = None
    wait_s: float = 0.0  # nothing can change before


def judge(need: Need, facts: Facts) -> Verdict:
    if facts.still_s < need.settle_s:
        return Verdict(reason="it has changed just now", wait_s=need.settle_s - facts.still_s)
    if not facts.size and not need.empty:
        return Verdict(reason="it is empty")
    if need.closed and not facts.writer_asked:
        return Verdict(ask=Ask.WRITER)
    if need.closed and facts.writer:
        return Verdict(reason="its writer has it open")
    if need.sentinel:
        if facts.sentinel is None:
            return Verdict(ask=Ask.SENTINEL)
        if not facts.sentinel:
            return Verdict(reason=f"its sentinel file {need.sentinel!r} is not there")
    if need.end_marker:
        if facts.tail is None:
            return Verdict(ask=Ask.TAIL)
        if not facts.tail:
            return Verdict(reason=f"it does not end with {need.end_marker!r}")
    if need.question is not None:
        if facts.contents is None:
            return Verdict(ask=Ask.CONTENTS)
        if lacking := _lacks(need, facts.contents):
            return Verdict(reason=lacking)
    if need.parts:
        if facts.lacking is None:
            return Verdict(ask=Ask.PARTS)
        if facts.lacking:
            return Verdict(reason=facts.lacking)
    proven = need.sentinel or need.end_marker or need.frames or need.layout
    if need.closed and not proven and facts.writer is None and facts.still_s < UNSEEN_S:
        return Verdict(reason="its writer cannot be seen from here", wait_s=UNSEEN_S - facts.still_s)
    return Verdict(whole=True)


def _lacks(need: Need, seen: Contents) -> str:
    """What its contents lack, in a sentence; empty when nothing."""
    if seen.broken:
        return f"it cannot be read as HDF5: {seen.broken}"
    if seen.writing:
        return "it is marked as open for writing: its writer is at work, or died"
    lacking = _frames(need, seen) if need.frames else ""
    if not lacking and need.layout is Layout.DXCHANGE:
        lacking = _dxchange(need, seen)
    if not lacking and need.layout is Layout.NEXUS:
        lacking = _nexus(seen)
    return lacking


def _frames(need: Need, seen: Contents) -> str:
    expected = number(seen.values.get(need.expected)) if isinstance(need.expected, str) else need.expected
    if expected is None:
        return f"it does not say in {need.expected!r} how many frames it is to have"
    count, lacking = _count(need.frames, seen)
    return lacking or ("" if count == expected else f"{need.frames} has {count} of {expected} frames")


def _dxchange(need: Need, seen: Contents) -> str:
    angles, lacking = _count(DX_THETA, seen)
    if lacking:
        return lacking
    projections, lacking = _count(DX_DATA, seen)
    if lacking:
        return lacking
    if projections != angles:
        return f"{DX_DATA} has {projections} projections for {angles} angles"
    return next((said for d in (DX_FLAT, DX_DARK) if need.flats and (said := _count(d, seen)[1])), "")


def _nexus(seen: Contents) -> str:
    if not seen.entries:
        return "it has no NXentry"
    return next((f"its NXentry {name!r} has no end_time" for name, at in seen.entries.items() if not at), "")


def _count(dataset: str, seen: Contents) -> tuple[int, str]:
    """How many frames a dataset has, and what is wrong with it."""
    shape = seen.shapes.get(dataset)
    if shape is None:
        return 0, f"it has no dataset {dataset}"
    if not shape.shape or not shape.shape[0]:
        return 0, f"{dataset} is empty"
    return shape.shape[0], "" if shape.written else f"{dataset} is not written to its end"


def number(value: Any) -> int | None:
    """A count as files say it: a number, or a text of one."""
    if isinstance(value, bool):
        return None
    try:
        count = int(value)
        return count if count == float(value) and count > 0 else None
    except (TypeError, ValueError, OverflowError):
        return None
