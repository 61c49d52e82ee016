"""Open an HDF5 file from outside, believing nothing it claims.

No link leads out of the file, no size is taken for true that the stored bytes cannot hold, and what is wrong is told
in one sentence.
"""

from __future__ import annotations

import math
import os
import stat
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 -- registers the compression filters that detectors use
import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError, nearest
from kernels.outputs import io_error

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SPECIAL_RATIO = 5000  # no lossless filter in use packs tighter than this
_APART = "Copy all of it into one file first (h5copy, or h5repack for virtual data sets)."
_WHOLE = "Wait until it is written to its end, or copy it again."


def regular(path: str, what: str = "file") -> os.stat_result:
    """What is known of an input that has to be a regular file with something in it.

    Raises
    ------
    KernelError
        Exit 66 when it is missing, empty, unreadable, a directory or a device.
    """
    try:
        facts = os.stat(path)
        if stat.S_ISREG(facts.st_mode):
            with open(path, "rb"):
                pass
    except (OSError, ValueError) as error:
        why = os.strerror(getattr(error, "errno", 0) or 0) if isinstance(error, OSError) else str(error)
        raise KernelError(f"The input {path!r} cannot be read: {why}.", Exit.NO_INPUT) from error
    if not stat.S_ISREG(facts.st_mode):
        kind = "a directory" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
        raise KernelError(f"The input {path!r} is {kind}. Give the {what} itself.", Exit.NO_INPUT)
    if facts.st_size == 0:
        raise KernelError(f"The input {path!r} is empty (0 bytes). {_WHOLE}", Exit.NO_INPUT)
    return facts


def is_hdf5(path: str) -> bool:
    """Whether an HDF5 signature stands at 0, 512, 1024, 2048, … as the format allows."""
    with open(path, "rb") as file:
        offset, size = 0, os.fstat(file.fileno()).st_size
        while offset < size:
            file.seek(offset)
            if file.read(8) == _SIGNATURE:
                return True
            offset = max(512, offset * 2)
    return False


def open_file(path: str, hint: str = "") -> h5py.File:
    """The file, for reading; `hint` says what it should be where it is no HDF5 file.

    Raises
    ------
    KernelError
        Exit 66 when it is missing, empty or unreadable, 65 when it is truncated or not HDF5, 75 when a writer has it.
    """
    facts = regular(path, "HDF5 file")
    if not is_hdf5(path):
        raise KernelError(f"The input {path!r} is not an HDF5 file. {hint}".rstrip(), Exit.BAD_INPUT)
    try:
        return h5py.File(path, "r", locking="best-effort")
    except BlockingIOError as error:
        sentence = f"The input {path!r} is open in a writer; wait until it is closed."
        raise KernelError(sentence, Exit.TRANSIENT) from error
    except (OSError, RuntimeError, ValueError) as error:
        why = reason(error)
        if "truncated" in why:
            what = f"is truncated: it ends before its data do ({facts.st_size} bytes are there). {_WHOLE}"
        elif "already open for write" in why:
            what = f"was not closed by its writer. {_WHOLE}"
        else:
            what = f"is a damaged HDF5 file ({why}). {_WHOLE}"
        raise KernelError(f"The input {path!r} {what}", Exit.BAD_INPUT) from error


def found(file: h5py.File, path: str) -> h5py.Dataset | None:
    """The data set at `path` or None, never following a link out of the file.

    Raises
    ------
    KernelError
        Exit 65 when there is something else in its place, or it is kept in another file.
    """
    here, missing = _walk(file, path)
    if missing:
        return None
    if not isinstance(here, h5py.Dataset):
        raise _bad(file, f"{path} is a group, not a data set.")
    if h5py.h5o.get_info(here.id).fileno != h5py.h5o.get_info(file.id).fileno:
        raise _bad(file, f"{path} leads into another file. {_APART}")
    if here.is_virtual and any(source.file_name != "." for source in here.virtual_sources()):
        raise _bad(file, f"{path} is a virtual data set over other files. {_APART}")
    if here.external:
        raise _bad(file, f"{path} keeps its data in another file. {_APART}")
    return here


def numbers(
    file: h5py.File,
    path: str,
    *,
    rank: int,
    kinds: str = "iuf",
    whole: bool = False,
    hint: str = "",
    where_missing: str = "",
) -> h5py.Dataset:
    """The data set of numbers at `path`, of so many dimensions, as large as it claims; if it has to be `whole`, with
    every chunk written.

    `hint` says what should be there where it is of another shape, `where_missing` what to do where nothing is.

    Raises
    ------
    KernelError
        Exit 65 for one that is missing, of another kind or shape, compressed in a way unknown here, or not whole.
    """
    dataset = found(file, path)
    if dataset is None:
        group, step = _walk(file, path)
        known = list(group.keys()) if isinstance(group, h5py.Group) else []
        there = ", ".join(sorted(known)[:12]) or "nothing"
        folder = getattr(group, "name", None) or "/"
        also = f"{nearest(step, known)} {where_missing}".rstrip()
        raise _bad(file, f"{path} is missing; in {folder} there is {there}.{also}")
    if dataset.dtype.kind not in kinds or dataset.dtype.itemsize > 8:
        wanted = "numbers of up to 64 bits. Convert it to float32" if "f" in kinds else "whole numbers"
        raise _bad(file, f"{path} holds {dataset.dtype}, not {wanted}.")
    if dataset.ndim != rank:
        raise _bad(file, f"{path} has {dataset.ndim} dimensions {dataset.shape}, not {rank}. {hint}".rstrip())
    if dataset.size == 0:
        raise _bad(file, f"{path} is empty (shape {dataset.shape}). {_WHOLE}")
    if missing := _filters_missing(dataset):
        fix = "Repack the file where it is (h5repack -f NONE), or install its HDF5 plugin."
        raise _bad(file, f"{path} is compressed by {missing}, which is not installed here. {fix}")
    _check_stored(file, dataset)
    if whole and dataset.chunks is not None and not dataset.is_virtual:
        written, every = int(dataset.id.get_num_chunks()), chunks_of(dataset)
        if written < every:
            said = f"only {written} of {every} chunks of {path} were written; its writer did not finish."
            raise _bad(file, f"{said} {_WHOLE}")
    return dataset


def chunks_of(dataset: h5py.Dataset) -> int:
    """How many chunks a data set has that is stored in such, when all are written."""
    return math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))


def read(dataset: h5py.Dataset, which: Any, some: str = "") -> NDArray[Any]:
    """A part of a data set; `some` says of what, as `frame 3 of `.

    Raises
    ------
    KernelError
        Exit 65 when what is stored cannot be read, 74 or 75 when the file system cannot.
    """
    try:
        return np.asarray(dataset[which])
    except (OSError, RuntimeError) as error:
        said = f"Cannot read the input {dataset.file.filename!r}"
        failure = io_error(OSError(*error.args), said, Exit.BAD_INPUT)
        if failure.exit_code == Exit.BAD_INPUT:
            what = f"{some}{dataset.name} cannot be read ({reason(error)})."
            failure = _bad(dataset.file, f"{what} The file is damaged: copy it again from where it was written.")
        raise failure from error


def reason(error: BaseException) -> str:
    """The core of an HDF5 message, without its call stack."""
    text = str(error.args[0] if error.args else error)
    inner = text[text.find("(") + 1 : text.rfind(")")] if "(" in text and ")" in text else text
    return inner[:160]


def _walk(file: h5py.File, path: str) -> tuple[Any, str]:
    """What is at `path` and an empty string; or how far it goes, and the step that is missing there."""
    here: Any = file
    walked = ""
    for step in path.strip("/").split("/"):
        if not isinstance(here, h5py.Group) or step not in here.keys():  # noqa: SIM118 -- `in here` follows links
            return here, step
        walked += f"/{step}"
        if isinstance(here.get(step, getlink=True), h5py.ExternalLink):
            raise _bad(file, f"{walked} is a link to another file. {_APART}")
        try:
            here = here[step]
        except (KeyError, OSError) as error:
            raise _bad(file, f"{walked} cannot be opened ({reason(error)}). {_WHOLE}") from error
    return here, ""


def _bad(file: h5py.File, what: str) -> KernelError:
    return KernelError(f"The input {file.filename!r} is not usable: {what}", Exit.BAD_INPUT)


def _filters_missing(dataset: h5py.Dataset) -> str:
    how = dataset.id.get_create_plist()
    filters = [how.get_filter(n) for n in range(how.get_nfilters())]
    return ", ".join(
        f"filter {code} {name.decode('utf-8', 'replace')}".rstrip()
        for code, _, _, name in filters
        if not h5py.h5z.filter_avail(code)
    )


def _check_stored(file: h5py.File, dataset: h5py.Dataset) -> None:
    """Refuse claims that the stored bytes cannot hold. (Chunks that were never written are the reader's to judge.)"""
    claimed, stored = int(np.prod(dataset.shape, dtype=object)), int(dataset.id.get_storage_size())
    claimed *= dataset.dtype.itemsize
    if dataset.is_virtual or dataset.id.get_create_plist().get_layout() == h5py.h5d.COMPACT:
        return
    if stored == 0:
        raise _bad(file, f"{dataset.name} claims {claimed} bytes but none were written. {_WHOLE}")
    if stored > os.stat(file.filename).st_size:
        raise _bad(file, f"{dataset.name} claims {stored} stored bytes, more than the file has. {_WHOLE}")
    if dataset.chunks is None and stored < claimed:
        raise _bad(file, f"{dataset.name} claims {claimed} bytes but only {stored} were written. {_WHOLE}")
    if dataset.chunks is not None:
        chunk = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize
        if chunk > stored * _SPECIAL_RATIO:
            raise _bad(file, f"{dataset.name} claims chunks of {chunk} bytes out of only {stored} stored. {_WHOLE}")
    if claimed > stored * _SPECIAL_RATIO:
        raise _bad(file, f"{dataset.name} claims {claimed} bytes out of only {stored} stored. {_WHOLE}")
