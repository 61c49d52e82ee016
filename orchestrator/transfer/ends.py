"""The two ends of a copy, as far as a copy asks them: what is there, its checksum, its name.

`LocalEnd` is this host's file system; `gridftp_server.ServerEnd` says the same words to a server.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from orchestrator.errors import InputError
from orchestrator.outside import effect
from orchestrator.transfer import checksums, disk
from orchestrator.transfer.base import TransferError, TransferRefused
from orchestrator.transfer.survey import survey

BLOCK_BYTES = 1 << 20
GRIDFTP_PORTS = {"ftp": 21, "gsiftp": 2811}  # by the scheme of an address


@dataclass(frozen=True)
class Entry:
    """One name at an end. `stamp` is another when the file was written or replaced, as far as the end can tell."""

    is_folder: bool
    size: int
    stamp: str
    is_link: bool = False


@dataclass(frozen=True)
class Listing:
    """Everything below a root, by relative name; a single file is there under the empty name."""

    root: str
    files: dict[str, Entry]
    folders: tuple[str, ...]  # parents before children

    @property
    def is_tree(self) -> bool:
        return "" not in self.files

    @property
    def bytes(self) -> int:
        return sum(f.size for f in self.files.values())


class End(Protocol):
    """A file system seen from here. Paths are absolute. One thread at a time; `again` is for another one."""

    place: str  # which file system: two ends of one place share their names
    at_once: int  # so many checksums are best asked side by side

    def shown(self, path: str) -> str:
        """The path for people: the address, where there is one."""
        ...

    def url(self, path: str) -> str:
        """The address for `globus-url-copy`, escaped. A TransferRefused where the end cannot carry the name."""
        ...

    def listing(self, path: str) -> Listing: ...

    def entry(self, path: str) -> Entry | None: ...

    def sums(self) -> Sequence[str]:
        """The kinds of checksum that it can tell."""
        ...

    def digest(self, path: str, kind: str, offset: int, length: int) -> str:
        """Of a range of a file, in hexadecimal digits; empty when the file is not there."""
        ...

    def whole(self, path: str, kind: str, size: int) -> str:
        """Of a whole file."""
        ...

    def free(self, path: str) -> int | None:
        """Bytes that may still be written there; None where it cannot be known."""
        ...

    def held(self, paths: Sequence[str]) -> int:
        """Bytes of the disk that these have already, files or folders; not counted in `free`."""
        ...

    def make_folder(self, path: str) -> None:
        """Make it and what is missing above it."""
        ...

    def keep(self, path: str, folders: Iterable[str]) -> None:
        """Bring a file and the folders to the disk, where that can be asked."""
        ...

    def publish(self, part: str, final: str) -> None: ...

    def remove(self, path: str) -> None:
        """A file or a tree; nothing when it is not there."""
        ...

    def again(self) -> End: ...

    def close(self) -> None:
        """Also ends what another thread is waiting for."""
        ...


class LocalEnd:
    """This host."""

    place = ""
    at_once = 1  # in order, so that the whole is known with the last piece

    def __init__(self, passing: str = "") -> None:
        """With `passing`, a kind of checksum, `whole` has it ready of a file whose pieces were asked for."""
        self._closed = False
        self._passing = passing
        self._passed: dict[str, dict[int, checksums.Sum]] = {}  # path -> bytes from the beginning -> their checksum

    def shown(self, path: str) -> str:
        return path

    def url(self, path: str) -> str:
        return "file://" + quote(os.fsencode(path))

    def listing(self, path: str) -> Listing:
        found = survey(path)
        for name in found.links:
            raise InputError(f"The source holds the link '{name}', and only files go to another host.")
        files = {name: Entry(False, f.size, repr(f)) for name, f in found.files.items()}
        return Listing(found.root, files, found.folders)

    def entry(self, path: str) -> Entry | None:
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise disk.explained(error, path) from error
        stamp = f"{status.st_dev}-{status.st_ino}-{status.st_mtime_ns}"
        return Entry(os.path.isdir(path), status.st_size, stamp, os.path.islink(path))

    def sums(self) -> Sequence[str]:
        return ("adler32", "sha256", "sha1", "md5", "sha512", "xxh3")

    def digest(self, path: str, kind: str, offset: int, length: int) -> str:
        made, end = checksums.new(kind), offset + length
        passed = self._passed.setdefault(path, {0: checksums.new(self._passing)}) if self._passing else {}
        for later in [at for at in passed if at > offset]:
            del passed[later]  # of what may be another by now
        passing = passed[offset].copy() if offset in passed else None
        both = [made, passing] if passing is not None else [made]
        try:
            read = self._read(path, offset, end, both)
        except FileNotFoundError:
            return ""
        if passing is not None and read == end:
            passed[end] = passing
        return made.hexdigest()

    def whole(self, path: str, kind: str, size: int) -> str:
        known = self._passed.get(path, {}) if kind == self._passing else {}
        begin = max(known, default=0)
        made = known[begin].copy() if known else checksums.new(kind)
        try:
            self._read(path, begin, size, [made])
        except FileNotFoundError:
            return ""
        return made.hexdigest()

    def _read(self, path: str, offset: int, end: int, sums: Sequence[checksums.Sum]) -> int:
        """Put the bytes into `sums`; where it came to an end."""
        buffer = memoryview(bytearray(min(BLOCK_BYTES, max(1, end - offset))))
        try:
            with open(path, "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), offset, end - offset, os.POSIX_FADV_SEQUENTIAL)
                # What has just arrived goes to the disk while the next piece moves, and not at the end.
                disk.begin_writing(file.fileno(), offset, end - offset)
                while offset < end and not self._closed:
                    length = os.preadv(file.fileno(), [buffer[: end - offset]], offset)
                    if not length:
                        break
                    for each in sums:
                        each.update(buffer[:length])
                    offset += length
        except FileNotFoundError:
            raise
        except OSError as error:
            raise TransferError(f"'{path}' cannot be read: {error.strerror}.") from error
        return offset

    def free(self, path: str) -> int | None:
        room = os.statvfs(_existing(path))
        return room.f_bavail * room.f_frsize

    def held(self, paths: Sequence[str]) -> int:
        return sum(disk.held(path) for path in paths)

    def reserve(self, path: str, size: int) -> None:
        """Let the file system find the room of a file that is to come; with the permissions of a new one it is made."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(path, flags, 0o666)
            try:
                disk.reserve(file, size)
            finally:
                os.close(file)
        except OSError as error:
            raise disk.explained(error, path) from error

    def make_folder(self, path: str) -> None:
        try:
            disk.make_folder(path)
        except OSError as error:
            raise disk.explained(error, path) from error

    def keep(self, path: str, folders: Iterable[str]) -> None:
        try:
            if path:
                disk.sync_file(path)
            for folder in folders:
                disk.sync_folder(folder)
        except OSError as error:
            raise disk.explained(error, path) from error

    def publish(self, part: str, final: str) -> None:
        try:
            with effect("file.publish"):
                os.rename(part, final)
            disk.sync_folder(os.path.dirname(final))
        except OSError as error:
            raise disk.explained(error, final) from error

    def remove(self, path: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def again(self) -> LocalEnd:
        return LocalEnd(self._passing)

    def close(self) -> None:
        self._closed = True


def _existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def local_end(place: str, kind: str) -> tuple[End, str]:
    """This host, and the path on it; a `/` at its end stays, for it says that a folder is meant."""
    if not place or "\0" in place:
        raise TransferRefused(f"'{place}' is not a path.")
    return LocalEnd(kind), os.path.abspath(place) + ("/" if place.endswith("/") else "")
