"""File formats, read as far as a check needs: open, list, find one array, read it in bounded blocks.

`open_as` really reads (HDF5 superblock and root listing, Zarr metadata, every pixel of an image) and
answers a *finder*, which turns a dataset name into an `Array`. Whatever is wrong with the file is
`Unreadable` with one clause; nothing is believed that a file claims about itself before it is compared with
what is stored.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK_BYTES = 32 << 20  # read at once, unless one stored chunk is larger
CHUNK_LIMIT_BYTES = 2 << 30  # a chunk has to be decoded whole; a larger one is refused rather than risked
JSON_LIMIT_BYTES = 1 << 30


class Unreadable(Exception):
    """The file is not what it should be; the text is a clause such as `it is cut short (…)`."""


@dataclass(frozen=True)
class Array:
    """One array in a file. `stored` of `chunks` chunks are there (both 0 if the format stores none)."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    grain: tuple[int, ...]  # smallest block worth reading
    read: Callable[[tuple[slice, ...]], NDArray[Any]]
    stored: int = 0
    chunks: int = 0
    unit: str = "chunks"
    flat: bool = False  # `read` takes one slice, of the values in the order they are stored

    @property
    def size(self) -> int:
        return math.prod(self.shape)


Finder = Callable[[str], Array]


def count(number: float, unit: str = "B") -> str:
    """`80 TB`, `1.2 kB`: a size a person can compare."""
    power = 0
    while number >= 1000 and power < 5:
        number, power = number / 1000, power + 1
    return f"{number:.3g} {' kMGTP'[power].strip()}{unit}"


def clause(error: BaseException) -> str:
    """The useful part of a library's message, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    inner = text[text.find("(") + 1 : text.rfind(")")] if "(" in text and text.endswith(")") else text
    return (inner or text)[:200].rstrip(".")


def sniff(path: str) -> str:
    """The format a file has by its first bytes, or an empty string."""
    if os.path.isdir(path):
        return "zarr"
    with open(path, "rb") as file:
        head = file.read(8)
    for magic, kind in (
        (b"\x89HDF\r\n\x1a\n", "hdf5"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\x93NUMPY", "npy"),
        (b"II*\0", "tiff"),
        (b"MM\0*", "tiff"),
        (b"II+\0", "tiff"),
        (b"MM\0+", "tiff"),
    ):
        if head.startswith(magic):
            return kind
    return ""


def open_as(kind: str, path: str, *, stack: ExitStack, root: str) -> Finder | None:
    """Open `path` as `kind`; links out of the file may lead only into `root` or the file's own directory."""
    from orchestrator.agent import formats_hdf5, formats_zarr

    openers: dict[str, Callable[[], Finder | None]] = {
        "hdf5": lambda: formats_hdf5.open_hdf5(path, stack, root),
        "zarr": lambda: formats_zarr.open_zarr(path),
        "npy": lambda: _npy(path, stack),
        "png": lambda: _image(path, "png", stack),
        "tiff": lambda: _image(path, "tiff", stack),
        "json": lambda: _json(path),
    }
    if kind not in openers:
        raise Unreadable(f"{kind!r} is not a format that can be opened ({', '.join(sorted(openers))})")
    is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    if is_directory != (kind == "zarr"):
        raise Unreadable(f"it is a {'directory' if is_directory else 'file'}")
    try:
        return openers[kind]()
    except Unreadable:
        raise
    except (Exception, RecursionError) as error:  # a decoder raises anything
        raise Unreadable(f"it does not open as {kind} ({clause(error)})") from error


def whole(name: str) -> None:
    if name.strip("/"):
        raise Unreadable(f"it holds one array and no dataset {name!r}")


def bounded(shape: tuple[int, ...], itemsize: int, what: str) -> None:
    if (size := math.prod(shape) * itemsize) > CHUNK_LIMIT_BYTES:
        raise Unreadable(
            f"one {what} is {count(size)}, too large to decode (limit {count(CHUNK_LIMIT_BYTES)})"
        )


def _npy(path: str, stack: ExitStack) -> Finder:
    import numpy as np

    file = stack.enter_context(Path(path).open("rb"))  # noqa: SIM115  (the stack closes it)
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _fortran, dtype = header(file)
    if dtype.hasobject:
        raise Unreadable("it holds pickled Python objects, which are not opened")
    start, size = file.tell(), math.prod(shape)
    wanted, there = start + size * dtype.itemsize, os.fstat(file.fileno()).st_size
    if there < wanted:
        raise Unreadable(f"it is cut short ({count(there)} of {count(wanted)})")

    def read(block: tuple[slice, ...]) -> NDArray[Any]:
        first, last = block[0].start, block[0].stop
        data = os.pread(file.fileno(), (last - first) * dtype.itemsize, start + first * dtype.itemsize)
        return np.frombuffer(data, dtype)

    def find(name: str) -> Array:
        whole(name)
        # Values are looked at in the order they are stored: no check depends on where in the array they are.
        return Array("", tuple(shape), dtype, (), read, flat=True)

    return find


def _json(path: str) -> None:
    import msgspec

    if (size := os.path.getsize(path)) > JSON_LIMIT_BYTES:
        raise Unreadable(f"it is {count(size)} of JSON (limit {count(JSON_LIMIT_BYTES)})")
    with open(path, "rb") as file:
        msgspec.json.decode(file.read())


def _image(path: str, kind: str, stack: ExitStack) -> Finder:
    import numpy as np
    from PIL import PngImagePlugin, TiffImagePlugin

    # The plugins are used directly: `Image.open` warns on every image of a large detector.
    file = stack.enter_context(Path(path).open("rb"))  # noqa: SIM115  (the stack closes it)
    if kind == "png":
        PngImagePlugin.PngImageFile(file).verify()
        file.seek(0)
        image: Any = PngImagePlugin.PngImageFile(file)
    else:
        image = TiffImagePlugin.TiffImageFile(file)
    pages: int = getattr(image, "n_frames", 1)
    shape: tuple[int, ...] = ()
    dtype, same = np.dtype("u1"), True
    for page in range(pages):
        image.seek(page)
        bounded((image.height, image.width, len(image.getbands())), 4, "page")
        values = np.asarray(image)
        if not page:
            shape, dtype = values.shape, values.dtype
        # A thumbnail or label beside the image: valid TIFF, but then the pages are no stack.
        same = same and (values.shape, values.dtype) == (shape, dtype)
    page_shape, stacked = shape, same and pages > 1

    def read(block: tuple[slice, ...]) -> NDArray[Any]:
        wanted = range(block[0].start, block[0].stop) if stacked else (0,)
        values = []
        for page in wanted:
            image.seek(page)
            values.append(np.asarray(image))
        return np.stack(values)

    def find(name: str) -> Array:
        whole(name)
        if stacked:
            return Array("", (pages, *page_shape), dtype, (1, *page_shape), read)
        return Array("", page_shape, dtype, page_shape, read)

    return find
