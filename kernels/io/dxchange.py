"""Read DXchange scans (HDF5), slab by slab, and refuse what is not one in a clear sentence.

Layout, as written at APS and read by TomoPy and TomocuPy: `/exchange/data` (angles, rows, columns),
`/exchange/data_white` and `data_dark` (frames, rows, columns), `/exchange/theta` (angles,) in degrees.
Format: De Carlo et al., J. Synchrotron Rad. 21 (2014) 1224.

A scan comes from outside, so nothing it claims is believed (see `kernels.io.hdf5`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from kernels.cautions import Caution, Code, parsed
from kernels.errors import Exit, KernelError
from kernels.io import hdf5
from kernels.io.angles import doubts, read_theta, spaced

DATA, WHITE, DARK, THETA = "/exchange/data", "/exchange/data_white", "/exchange/data_dark", "/exchange/theta"
WARNINGS = "warnings"  # attribute of the data: those of the kernel that has corrected them

Warn = Callable[[Code, str], None]

_WHOLE = "Wait until it is written to its end, or copy it again."
_LAYOUT = "A scan is a DXchange file, with /exchange/data (angles, rows, columns)."
_ORDER = "Its order is (angles, rows, columns)."
_FIELDS = "Measure them, or copy those of another scan with the same beam there (h5copy)."
_MISSING = {
    DATA: _LAYOUT,
    WHITE: _FIELDS,
    DARK: _FIELDS,
    THETA: "If the angles are known, give `angles`, such as 0:180.",
}
_NONE = {DATA: "0 projections, at least 2 are needed", WHITE: "no flat fields", DARK: "no dark fields"}
_LEAST_COLUMNS = 8
_FEW_FLATS = 4  # fewer cannot tell a cosmic ray
_MOST, _LONGEST = 100, 2000  # warnings taken on, and characters of each


class Scan:
    """An open, checked scan. Use as a context manager.

    Attributes
    ----------
    angles, rows, columns : int
        Shape of the projections.
    theta_deg : ndarray, shape (angles,), float64
        Angles in degrees, finite.
    flats, darks : int
        Number of flat and dark frames, at least 1 each.

    `warn` gets what is strange about a scan that can be used all the same, and what its own maker has warned of.

    Raises
    ------
    KernelError
        Exit 66 when the file is missing, empty or unreadable, 65 when it is not a usable scan, 75 when it is locked
        by a writer. Each sentence names the file and what is wrong.
    """

    def __init__(self, path: str, *, angles: str | None = None, warn: Warn | None = None) -> None:
        self.path = path
        self._name = repr(path)
        self._file = hdf5.open_file(path, _LAYOUT)
        try:
            self._data = self._dataset(DATA, rank=3)
            self._white = self._dataset(WHITE, rank=3)
            self._dark = self._dataset(DARK, rank=3)
            self.angles, self.rows, self.columns = (int(n) for n in self._data.shape)
            self._check_shapes()
            if angles is not None:
                self.theta_deg = spaced(angles, self.angles)
            else:
                self.theta_deg = read_theta(self._dataset(THETA, rank=1), self.angles, self._name)
            if warn is not None:
                for caution in self._cautions():
                    warn(*caution)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Scan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _cautions(self) -> Iterator[Caution]:
        yield from parsed(self._told())
        if phrases := "; ".join(doubts(self.theta_deg)):
            yield Caution(Code.ANGLES, f"The angles of {self._name} are used as they are, but {phrases}.")
        if self.flats < _FEW_FLATS and not self.corrected:
            noise = "the noise of so few makes rings, and a cosmic ray in one stays. Take 10 or more"
            yield Caution(Code.FLATS, f"{self._name} has {self.flats} flat fields: {noise}.")

    def _told(self) -> list[str]:
        """The warnings that the kernel which made this scan has left in it."""
        told = self._data.attrs.get(WARNINGS, ())
        return [line[:_LONGEST] for line in np.atleast_1d(told)[:_MOST] if isinstance(line, str)]

    @property
    def corrected(self) -> bool:
        """Whether it holds transmissions, of which the flats are 1 and have no noise."""
        return bool(self._data.attrs.get("units") == "transmission")

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self._data.dtype
        return dtype

    @property
    def flats(self) -> int:
        return int(self._white.shape[0])

    @property
    def darks(self) -> int:
        return int(self._dark.shape[0])

    @property
    def stored_bytes(self) -> int:
        return int(self._data.id.get_storage_size())

    @property
    def by_frames(self) -> bool:
        """Whether a few rows cost as much to read as all: they are stored in pieces that hold many rows each."""
        return bool(self._data.chunks) and self._data.chunks[1] > 1

    @property
    def title(self) -> str:
        """/exchange/title, or empty."""
        try:
            value = self._file["/exchange/title"][()]
        except (KeyError, OSError, TypeError, ValueError):
            return ""
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""

    def read_rows(self, start: int, stop: int, frames: range | None = None) -> NDArray[Any]:
        """Counts of detector rows start to stop, of neighbouring frames or of all: (angles, stop - start, columns), in
        the type of the file."""
        if frames is None:
            return self._read(self._data, start, stop)
        return hdf5.read(self._data, np.s_[frames.start : frames.stop, start:stop])

    def read_frames(self, numbers: NDArray[np.intp]) -> NDArray[Any]:
        """Counts of these projections, rising numbers: (frames, rows, columns), in the type of the file."""
        first, beyond = int(numbers[0]), int(numbers[-1]) + 1
        steps = np.unique(np.diff(numbers))
        if len(steps) <= 1:
            return hdf5.read(self._data, np.s_[first : beyond : int(steps[0]) if len(steps) else 1])
        return hdf5.read(self._data, np.s_[first:beyond])[numbers - first]

    def read_flats(self, start: int, stop: int) -> NDArray[Any]:
        """Flat fields of detector rows start to stop: (flats, stop - start, columns)."""
        return self._read(self._white, start, stop)

    def read_darks(self, start: int, stop: int) -> NDArray[Any]:
        """Dark fields of detector rows start to stop: (darks, stop - start, columns)."""
        return self._read(self._dark, start, stop)

    def _read(self, dataset: h5py.Dataset, start: int, stop: int) -> NDArray[Any]:
        return hdf5.read(dataset, np.s_[:, start:stop])

    def _bad(self, what: str, hint: str = "") -> KernelError:
        said = f"The scan {self._name} is not usable: {what}."
        return KernelError(f"{said} {hint}".rstrip(), Exit.BAD_INPUT)

    def _check_shapes(self) -> None:
        frame = (self.rows, self.columns)
        if self.angles < 2:
            raise self._bad(f"{DATA} holds {self.angles} projections, at least 2 are needed", _WHOLE)
        if self.columns < _LEAST_COLUMNS:
            raise self._bad(f"{DATA} is {self.columns} columns wide, at least {_LEAST_COLUMNS} are needed", _ORDER)
        for dataset, word in ((self._white, "flat fields"), (self._dark, "dark fields")):
            if dataset.shape[1:] != frame:
                what = f"{dataset.name} has frames of {dataset.shape[1:]}, but {DATA} has {frame}"
                raise self._bad(what, f"Put {word} of the same region and binning there.")

    def _dataset(self, path: str, *, rank: int) -> h5py.Dataset:
        there = hdf5.found(self._file, path)
        if path in _NONE and there is not None and there.shape and there.shape[0] == 0:
            raise self._bad(f"{path} holds {_NONE[path]} (shape {there.shape})", _MISSING[path])
        colour = " Make one grey value of the colours of each pixel." if there is not None and there.ndim == 4 else ""
        return hdf5.numbers(
            self._file, path, rank=rank, whole=True, hint=f"{_LAYOUT}{colour}", where_missing=_MISSING[path]
        )
