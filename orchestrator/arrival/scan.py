"""What lies below a watched root, as the truth: every file with its fingerprint, and what else is there.

Notifications of the kernel get lost; a scan does not. It goes down with `openat` and follows no link, so that nothing
renamed into its way leads it out of the root. It holds one open folder a level and one batch of files, whatever the
tree holds. What vanishes while it looks was not there; what cannot be read is said.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.errors import InputError, SettingsError

BATCH = 2000
DEEPEST = 100  # levels; two handles are open on each
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

KINDS = {
    stat.S_IFLNK: "a symbolic link, which is not followed",
    stat.S_IFIFO: "a FIFO, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
}


class Found(NamedTuple):
    """A regular file; `name` is relative to the root, with surrogate escapes where it is not UTF-8."""

    name: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    links: int = 1
    ctime_ns: int = 0

    @property
    def fingerprint(self) -> tuple[int, int, int, int]:
        return self[1:5]


class Odd(NamedTuple):
    """Something that is no regular file, with what it is."""

    name: str
    reason: str
    device: int
    inode: int


class Trouble(NamedTuple):
    """A place that could not be looked at."""

    name: str
    reason: str


@dataclass
class Batch:
    files: list[Found] = field(default_factory=list)
    odd: list[Odd] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    folders: list[tuple[int, str]] = field(default_factory=list)  # mtime_ns and name, of those that were looked into

    def __len__(self) -> int:
        return len(self.files) + len(self.odd) + len(self.troubles) + len(self.folders)

    def take(self) -> Batch:
        """What is in it, which is not in it any more."""
        taken = Batch(self.files, self.odd, self.troubles, self.folders)
        self.files, self.odd, self.troubles, self.folders = [], [], [], []
        return taken


class Root:
    """A watched directory, held open: renaming it away or putting another in its place changes nothing of what is
    looked at. `device`: the number to know its file system by; numbers may change when a machine is started again."""

    def __init__(self, path: str, device: int | None = None) -> None:
        """Raises SettingsError when it is no directory that can be read."""
        self.path = os.path.abspath(path)
        try:
            self._handle = os.open(os.path.realpath(self.path), _DIRECTORY)
        except OSError as error:
            raise SettingsError(f"The directory '{path}' cannot be watched: {error.strerror}.") from None
        status = os.fstat(self._handle)
        self.inode, self._device = status.st_ino, status.st_dev
        self.device = status.st_dev if device is None else device

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._handle)

    def gone(self) -> str:
        """Why what is at the path now is not what is watched; empty when it is."""
        try:
            status = os.stat(self.path)
        except OSError as error:
            return f"the directory '{self.path}' is not there any more: {error.strerror}"
        if (status.st_dev, status.st_ino) != (self._device, self.inode):
            return f"another directory is at '{self.path}' now"
        return ""

    def scan(self, below: str = "", *, batch: int = BATCH) -> Iterator[Batch]:
        """Everything below that folder, in batches; one that is not there any more gives nothing."""
        filling = Batch()
        with ExitStack() as opened:
            try:
                handle = self._enter(below, opened)
            except OSError as error:
                if not isinstance(error, FileNotFoundError | NotADirectoryError):
                    yield Batch(troubles=[Trouble(below, _why(error))])
                return
            for _ in self._walk(handle, below, filling, below.count("/") + 1 if below else 0):
                if len(filling) >= batch:
                    yield filling.take()
        if len(filling):
            yield filling.take()

    def look(self, name: str) -> Found | None:
        """One file; None when there is no such regular file."""
        with ExitStack() as opened:
            try:
                parent, _, last = name.rpartition("/")
                status = os.stat(last, dir_fd=self._enter(parent, opened), follow_symlinks=False)
            except (OSError, ValueError):
                return None
        return self._found(name, status) if stat.S_ISREG(status.st_mode) else None

    def open(self, name: str) -> int:
        """A handle to read a file by, without following a link. Raises InputError when there is no such file."""
        with ExitStack() as opened:
            try:
                parent, _, last = name.rpartition("/")
                handle = os.open(last, _FILE, dir_fd=self._enter(parent, opened))
            except (OSError, ValueError) as error:
                raise InputError(f"The file '{name}' cannot be read: {_why(error)}.") from None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise InputError(f"'{name}' is not a regular file any more.")
        return handle

    def of_handle(self, name: str, handle: int) -> Found:
        return self._found(name, os.fstat(handle))

    def _found(self, name: str, status: os.stat_result) -> Found:
        device = self.device if status.st_dev == self._device else status.st_dev
        return Found(
            name, device, status.st_ino, status.st_size, status.st_mtime_ns, status.st_nlink, status.st_ctime_ns
        )

    def _enter(self, below: str, opened: ExitStack) -> int:
        """Go down name by name; each could be replaced by a link at any time."""
        handle = self._handle
        for name in filter(None, below.split("/")):
            if name in (".", ".."):
                raise FileNotFoundError(0, "No such file or directory")
            handle = os.open(name, _DIRECTORY, dir_fd=handle)
            opened.callback(os.close, handle)
        return handle

    def _walk(self, handle: int, below: str, into: Batch, depth: int) -> Iterator[None]:
        """Adds to `into`, and stops now and then so that it can be emptied."""
        into.folders.append((os.fstat(handle).st_mtime_ns, below))
        prefix = f"{below}/" if below else ""
        mine, known_as = self._device, self.device
        files = into.files
        try:
            with os.scandir(handle) as entries:
                for entry in entries:
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            yield from self._descend(handle, entry.name, prefix + entry.name, into, depth + 1)
                            files = into.files
                            continue
                        s = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        into.troubles.append(Trouble(prefix + entry.name, _why(error)))
                        continue
                    device = known_as if s.st_dev == mine else s.st_dev
                    if stat.S_ISREG(s.st_mode):
                        name = prefix + entry.name
                        times = (s.st_mtime_ns, s.st_nlink, s.st_ctime_ns)
                        files.append(Found(name, device, s.st_ino, s.st_size, *times))
                        if len(files) % 256 == 0:
                            yield
                            files = into.files
                    elif not stat.S_ISDIR(s.st_mode):
                        kind = KINDS.get(stat.S_IFMT(s.st_mode), "not a regular file")
                        into.odd.append(Odd(prefix + entry.name, kind, device, s.st_ino))
                        yield
                        files = into.files
        except OSError as error:  # the folder itself went away under us, or its disk did
            if not isinstance(error, FileNotFoundError):
                into.troubles.append(Trouble(below, _why(error)))

    def _descend(self, parent: int, name: str, full: str, into: Batch, depth: int) -> Iterator[None]:
        if depth > DEEPEST:
            into.troubles.append(Trouble(full, f"more than {DEEPEST} folders deep"))
            yield
            return
        try:
            handle = os.open(name, _DIRECTORY, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return  # gone, or a link by now: the next scan says which
        except OSError as error:
            into.troubles.append(Trouble(full, _why(error)))
            return
        try:
            yield from self._walk(handle, full, into, depth)
            yield
        finally:
            os.close(handle)


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
