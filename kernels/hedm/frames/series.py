"""Series of images, TIFF or CBF, one frame a file or several, read by FabIO (https://fabio.readthedocs.io)."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.compiled import threads
from kernels.errors import Exit, KernelError
from kernels.hedm.frames import scan
from kernels.hedm.frames.source import Doubles, Limits, Seen, bad, frames_at_once, held_as, plausible
from kernels.io.hdf5 import regular

_NUMBER = re.compile(r"(\d+)(?!.*\d)")
_SHOWN = 5


def files_of(pattern: str) -> list[str]:
    """The files that a pattern such as `scan_*.tif` names, by the last number in their names.

    Raises
    ------
    KernelError
        Exit 66 when there is none.
    """
    names = glob.glob(pattern)
    if not names:
        raise KernelError(f"No file is named like {pattern!r}.", Exit.NO_INPUT)
    return sorted(names, key=lambda name: (_number(name) is None, _number(name) or 0, name))


class SeriesSource:
    """The frames of image files in the order given (see `Source`).

    Omegas are taken from CBF headers as PILATUS detectors write them (`Start_angle`, `Angle_increment`).

    Raises
    ------
    KernelError
        Exit 66 when a file is missing or empty; 65 when one cannot be read, has another shape or kind than the first,
        or a number is missing in the series; 2 when FabIO is not installed.
    """

    masked: NDArray[np.bool_] | None = None
    held = "frames"

    def __init__(self, paths: Sequence[str]) -> None:
        if not paths:
            raise KernelError("The series has no files.", Exit.NO_INPUT)
        self.name = paths[0] if len(paths) == 1 else f"{paths[0]} … {Path(paths[-1]).name}"
        self._paths = list(paths)
        _refuse_gaps(self.name, self._paths)
        first = _opened(paths[0])
        self.deep = int(getattr(first, "nframes", 1))
        image = np.asarray(first.data)
        if image.ndim != 2 or image.dtype.kind not in "iuf":
            raise bad(self.name, f"{paths[0]!r} holds {image.dtype} of shape {image.shape}, not a picture of numbers.")
        self.rows, self.columns = image.shape
        self._stored = image.dtype.newbyteorder("=")
        self.kind = held_as(image.dtype)
        self.count = len(paths) * self.deep
        plausible(self.name, self.count, self.rows, self.columns)
        self.omega_deg = self._omegas(first.header)
        self.at_once = frames_at_once(self.rows, self.columns, self.kind)
        self._room = scan.Room()

    def frames(self, first: int, beyond: int) -> NDArray[Any]:
        stack = np.empty((beyond - first, self.rows, self.columns), self.kind)
        self.fill(first, beyond, stack)
        return stack

    def fill(self, first: int, beyond: int, into: NDArray[Any]) -> None:
        names = range(first // self.deep, -(-beyond // self.deep))

        def lay_out(which: int) -> None:
            opened = _opened(self._paths[which])
            if int(getattr(opened, "nframes", 1)) != self.deep:
                raise bad(self.name, f"{self._paths[which]!r} holds {opened.nframes} frames, the first {self.deep}.")
            for frame in range(max(first, which * self.deep), min(beyond, (which + 1) * self.deep)):
                into[frame - first] = self._image(which, opened, frame - which * self.deep)

        with ThreadPoolExecutor(min(8, threads()), "read") as readers:
            list(readers.map(lay_out, names))

    def read(self, first: int, beyond: int) -> NDArray[Any]:
        return self.frames(first, beyond)

    def look(self, block: Any, limits: Limits, above: NDArray[Any]) -> Seen:
        return scan.look(block, limits, above, self._room)

    def _image(self, which: int, opened: Any, frame: int) -> NDArray[Any]:
        path = self._paths[which]
        try:
            image = np.asarray(opened.getframe(frame).data if self.deep > 1 else opened.data)
        except Exception as error:  # what FabIO and the formats below it raise is of any kind
            raise bad(self.name, f"{path!r} cannot be read ({error}). Copy it again.") from error
        if image.shape != (self.rows, self.columns) or image.dtype.newbyteorder("=") != self._stored:
            here, there = f"{image.shape} of {image.dtype}", f"{(self.rows, self.columns)} of {self._stored}"
            raise bad(self.name, f"{path!r} is {here}, the first of the series {there}.")
        return image

    def _omegas(self, header: Any) -> Doubles | None:
        """Of CBF headers: where each frame begins and ends, if all say so."""
        if self.deep > 1 or _angles(header) is None:
            return None
        with ThreadPoolExecutor(min(8, threads()), "read") as readers:
            found = list(readers.map(lambda path: _angles(_opened(path).header), self._paths))
        for path, angles in zip(self._paths, found, strict=True):
            if angles is None:
                raise bad(self.name, f"{path!r} does not say its angle, others do. Give omegas by start and step.")
        return np.array(found, np.float64)


def _opened(path: str) -> Any:
    regular(path)
    try:
        fabio = import_module("fabio")
    except ImportError as error:
        raise KernelError("Reading TIFF and CBF needs FabIO: pip install fabio.") from error
    logging.getLogger("fabio").setLevel(logging.CRITICAL)  # it tells on stderr what is raised anyhow
    try:
        opened = fabio.open(path)
        if opened.data is None:
            raise ValueError("no picture in it")
    except Exception as error:  # what FabIO and the formats below it raise is of any kind
        raise bad(path, f"it is no whole picture ({error}). Copy it again.") from error
    return opened


def _angles(header: Any) -> tuple[float, float] | None:
    text = str(header.get("_array_data.header_contents", ""))
    found = [re.search(rf"{word}\s+([-+.\deE]+)", text) for word in ("Start_angle", "Angle_increment")]
    if not all(found):
        return None
    try:
        start, step = (float(match.group(1)) for match in found if match)
    except ValueError:
        return None
    return start, start + step


def _number(path: str) -> int | None:
    found = _NUMBER.search(Path(path).stem)
    return int(found.group(1)) if found else None


def _refuse_gaps(name: str, paths: list[str]) -> None:
    """Numbers in names have to go up by one, or all by the same."""
    numbers = [_number(path) for path in paths]
    known = [number for number in numbers if number is not None]
    if len(known) < len(paths) or len(known) < 3:
        return
    steps = np.diff(known)
    if (steps <= 0).any():
        at = int(np.flatnonzero(steps <= 0)[0])
        raise bad(name, f"{Path(paths[at + 1]).name!r} follows {Path(paths[at]).name!r}: they are not in order.")
    step = int(steps.min())
    missing = sorted(set(range(known[0], known[-1] + 1, step)) - set(known))
    if missing:
        some = ", ".join(str(number) for number in missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        raise bad(
            name,
            f"{len(missing)} of its frames are missing, numbers {some}. Copy them again, or read the parts before and "
            "after by themselves.",
        )
