"""Read DXchange scans (HDF5), slab by slab, and refuse what is not one in a clear sentence.

Layout, as written at APS and read by TomoPy and TomocuPy: `/exchange/data` (angles, rows, columns),
`/exchange/data_white` and `data_dark` (frames, rows, columns), `/exchange/theta` (angles,) in degrees.
Format: De Carlo et al., J. Synchrotron Rad. 21 (2014) 1224.

A scan comes from outside, so nothing it claims is believed: no link leads out of the file, no size is taken for
true that the stored bytes cannot hold.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 -- registers the compression filters that detectors use
import numpy as np
from numpy.typing import NDArray

from kernels.cautions import Caution, Code, parsed
from kernels.errors import Exit, KernelError, nearest
from kernels.io.angles import doubts, read_theta, spaced
from kernels.outputs import io_error

DATA, WHITE, DARK, THETA = "/exchange/data", "/exchange/data_white", "/exchange/data_dark", "/exchange/theta"
WARNINGS = "warnings"  # attribute of the data: those of the kernel that has corrected them

Warn = Callable[[Code, str], None]

_WHOLE = "Wait until it is written to its end, or copy it again."
_APART = "Copy all of it into one file first (h5copy, or h5repack for virtual data sets)."
_LAYOUT = "A scan is a DXchange file, with /exchange/data (angles, rows, columns)."
_ORDER = "Its order is (angles, rows, columns)."
_FIELDS = "Measure them, or copy those of another scan with the same beam there (h5copy)."
_MISSING = {
    DATA: _LAYOUT,
    WHITE: _FIELDS,
    DARK: _FIELDS,
    THETA: "If the angles are known, give `angles`, such as 0:180.",
}
_LEAST_COLUMNS = 8
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FEW_FLATS = 4  # fewer cannot tell a cosmic ray
_MOST, _LONGEST = 100, 2000  # warnings taken on, and characters of each
_SPECIAL_RATIO = 5000  # no lossless filter in use packs tighter than this


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
        self._file = _open(path)
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
        return self._asked(self._data, np.s_[frames.start : frames.stop, start:stop])

    def read_frames(self, numbers: NDArray[np.intp]) -> NDArray[Any]:
        """Counts of these projections, rising numbers: (frames, rows, columns), in the type of the file."""
        first, beyond = int(numbers[0]), int(numbers[-1]) + 1
        steps = np.unique(np.diff(numbers))
        if len(steps) <= 1:
            return self._asked(self._data, np.s_[first : beyond : int(steps[0]) if len(steps) else 1])
        return self._asked(self._data, np.s_[first:beyond])[numbers - first]

    def read_flats(self, start: int, stop: int) -> NDArray[Any]:
        """Flat fields of detector rows start to stop: (flats, stop - start, columns)."""
        return self._read(self._white, start, stop)

    def read_darks(self, start: int, stop: int) -> NDArray[Any]:
        """Dark fields of detector rows start to stop: (darks, stop - start, columns)."""
        return self._read(self._dark, start, stop)

    def _read(self, dataset: h5py.Dataset, start: int, stop: int) -> NDArray[Any]:
        return self._asked(dataset, np.s_[:, start:stop])

    def _asked(self, dataset: h5py.Dataset, which: Any) -> NDArray[Any]:
        try:
            return np.asarray(dataset[which])
        except OSError as error:
            failure = io_error(error, f"Cannot read the scan {self._name}", Exit.BAD_INPUT)
            if failure.exit_code == Exit.BAD_INPUT:
                why = f"{dataset.name} cannot be read ({_reason(error)})"
                failure = self._bad(why, "The file is damaged: copy it again from where it was written.")
            raise failure from error

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
            if dataset.shape[0] == 0:
                raise self._bad(f"{dataset.name} holds no {word} (shape {dataset.shape})", _FIELDS)
            if dataset.shape[1:] != frame:
                what = f"{dataset.name} has frames of {dataset.shape[1:]}, but {DATA} has {frame}"
                raise self._bad(what, f"Put {word} of the same region and binning there.")

    def _dataset(self, path: str, *, rank: int) -> h5py.Dataset:
        found = self._follow(path)
        if not isinstance(found, h5py.Dataset):
            raise self._bad(f"{path} is a group, not a data set", _LAYOUT)
        if h5py.h5o.get_info(found.id).fileno != h5py.h5o.get_info(self._file.id).fileno:
            raise self._bad(f"{path} leads into another file", _APART)
        if found.is_virtual and any(source.file_name != "." for source in found.virtual_sources()):
            raise self._bad(f"{path} is a virtual data set over other files", _APART)
        if found.external:
            raise self._bad(f"{path} keeps its data in another file", _APART)
        if found.dtype.kind not in "iuf" or found.dtype.itemsize > 8:
            raise self._bad(f"{path} holds {found.dtype}, not numbers of up to 64 bits", "Convert it to float32.")
        if found.ndim != rank:
            colour = " Make one grey value of the colours of each pixel." if found.ndim == 4 else ""
            raise self._bad(f"{path} has {found.ndim} dimensions {found.shape}, not {rank}", f"{_LAYOUT}{colour}")
        if 0 in found.shape[1:] or (rank == 1 and found.size == 0):
            raise self._bad(f"{path} is empty (shape {found.shape})", _WHOLE)
        if missing := _filters_missing(found):
            what = f"{path} is compressed by {missing}, which is not installed here"
            raise self._bad(what, "Repack the file where it is (h5repack -f NONE), or install its HDF5 plugin.")
        self._check_stored(found)
        return found

    def _follow(self, path: str) -> Any:
        """The object at `path`, step by step, without ever following a link out of the file."""
        here: Any = self._file
        walked = ""
        for step in path.strip("/").split("/"):
            if not isinstance(here, h5py.Group) or step not in here.keys():  # noqa: SIM118 -- `in here` follows links
                known = list(here.keys()) if isinstance(here, h5py.Group) else []
                there = ", ".join(sorted(known)[:12]) or "nothing"
                hint = f"{nearest(step, known)} {_MISSING[path]}".strip()
                raise self._bad(f"{path} is missing; in {walked or '/'} there is {there}", hint)
            walked += f"/{step}"
            if isinstance(here.get(step, getlink=True), h5py.ExternalLink):
                raise self._bad(f"{walked} is a link to another file", _APART)
            try:
                here = here[step]
            except (KeyError, OSError) as error:
                raise self._bad(f"{walked} cannot be opened ({_reason(error)})", _WHOLE) from error
        return here

    def _check_stored(self, dataset: h5py.Dataset) -> None:
        """Refuse claims that the stored bytes cannot hold, and data sets whose writer did not finish."""
        claimed, stored = int(dataset.size) * dataset.dtype.itemsize, int(dataset.id.get_storage_size())
        if not claimed or dataset.is_virtual:
            return
        if stored == 0:
            raise self._bad(f"{dataset.name} claims {claimed} bytes but none were written", _WHOLE)
        if stored > os.stat(self.path).st_size:
            raise self._bad(f"{dataset.name} claims {stored} stored bytes, more than the file has", _WHOLE)
        if dataset.chunks is None:
            if dataset.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS and stored < claimed:
                raise self._bad(f"{dataset.name} claims {claimed} bytes but only {stored} were written", _WHOLE)
            return
        if claimed > stored * _SPECIAL_RATIO:
            raise self._bad(f"{dataset.name} claims {claimed} bytes out of only {stored} stored", _WHOLE)
        wanted = int(np.prod([-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]))
        written = int(dataset.id.get_num_chunks())
        if written < wanted:
            what = f"only {written} of {wanted} chunks of {dataset.name} were written; its writer did not finish"
            raise self._bad(what, _WHOLE)


def _filters_missing(dataset: h5py.Dataset) -> str:
    """The compression filters of a data set that cannot be undone here, or an empty string."""
    how = dataset.id.get_create_plist()
    filters = [how.get_filter(n) for n in range(how.get_nfilters())]
    return ", ".join(
        f"filter {code} {name.decode('utf-8', 'replace')}".rstrip()
        for code, _, _, name in filters
        if not h5py.h5z.filter_avail(code)
    )


def _open(path: str) -> h5py.File:
    name = repr(path)
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            kind = "a directory" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
            raise KernelError(f"The input {name} is {kind}. Give the HDF5 file of the scan.", Exit.NO_INPUT)
        if facts.st_size == 0:
            raise KernelError(f"The input {name} is empty (0 bytes). {_WHOLE}", Exit.NO_INPUT)
        with open(path, "rb") as file:
            head = _head(file)
    except OSError as error:
        raise KernelError(
            f"The input {name} cannot be read: {os.strerror(error.errno or 0)}.", Exit.NO_INPUT
        ) from error
    if not head:
        raise KernelError(f"The input {name} is not an HDF5 file. {_LAYOUT}", Exit.BAD_INPUT)
    try:
        return h5py.File(path, "r", locking="best-effort")
    except BlockingIOError as error:
        raise KernelError(f"The input {name} is open in a writer; wait until it is closed.", Exit.TRANSIENT) from error
    except (OSError, RuntimeError, ValueError) as error:
        why = _reason(error)
        if "truncated" in why:
            ends = f"it ends before its data do ({facts.st_size} bytes are there)"
            raise KernelError(f"The input {name} is truncated: {ends}. {_WHOLE}", Exit.BAD_INPUT) from error
        if "already open for write" in why:
            raise KernelError(f"The input {name} was not closed by its writer. {_WHOLE}", Exit.BAD_INPUT) from error
        raise KernelError(f"The input {name} is a damaged HDF5 file ({why}). {_WHOLE}", Exit.BAD_INPUT) from error


def _head(file: Any) -> bool:
    """Whether an HDF5 signature stands at 0, 512, 1024, 2048, … as the format allows."""
    offset, size = 0, os.fstat(file.fileno()).st_size
    while offset < size:
        file.seek(offset)
        if file.read(8) == _SIGNATURE:
            return True
        offset = max(512, offset * 2)
    return False


def _reason(error: BaseException) -> str:
    """The core of an HDF5 message, without its call stack."""
    text = str(error.args[0] if error.args else error)
    inner = text[text.find("(") + 1 : text.rfind(")")] if "(" in text and ")" in text else text
    return inner[:160]
