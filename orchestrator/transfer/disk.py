"""Files that are ours alone until they are whole: `.part` names, locks, syncs, refusals of the system."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orchestrator.transfer.base import TransferError, TransferRefused

PART = ".part"
FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY)
_FICLONE = 0x40049409  # linux/fs.h: share the blocks of another file, where the file system can (XFS, Btrfs)


def part_of(target: str, token: str = "") -> str:
    """`NAME.part`, with a digest in place of the end of a name that would become too long; `NAME.TOKEN.part`, the token
    as a digest, where no lock keeps two copies apart."""
    folder, name = os.path.split(target)
    ending = f".{hashlib.sha256(token.encode()).hexdigest()[:12]}{PART}" if token else PART
    raw = os.fsencode(name)
    if len(raw) + len(ending) > 255:
        name = os.fsdecode(raw[:200]) + "~" + hashlib.sha256(raw).hexdigest()[:16]
    return os.path.join(folder, name + ending)


def below(folder: str, name: str) -> str:
    """A name in a listing: a single file stands there under the empty one."""
    return os.path.join(folder, name) if name else folder


@contextmanager
def part_file(part: str) -> Iterator[int]:
    """An empty file at `part`, locked. What a killed copy left there is overwritten."""
    if os.path.islink(part):
        os.unlink(part)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        out = os.open(part, flags, 0o600)
    except PermissionError:  # killed between its permissions and its name
        os.unlink(part)
        out = os.open(part, flags, 0o600)
    try:
        _lock(out, part)
        os.ftruncate(out, 0)
        yield out
    finally:
        os.close(out)


@contextmanager
def locked_folder(folder: str) -> Iterator[None]:
    out = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(out, folder)
        yield
    finally:
        os.close(out)


def _lock(file: int, path: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TransferError(f"Another copy is writing '{path}'.", "It is tried again later.") from None
    except OSError:
        pass  # a file system without locks: the checksum still tells if two wrote at once
    # Between opening and locking, another copy may have finished: then this is its file, finally named.
    try:
        ours = os.path.samestat(os.fstat(file), os.lstat(path))
    except FileNotFoundError:
        ours = False
    if not ours:
        raise TransferError(f"Another copy has just finished '{path}'.", "It is tried again later.")


def make_folder(folder: str) -> None:
    """Make `folder` and what is missing above it, durably."""
    missing = []
    above = folder
    while not os.path.isdir(above):
        missing.append(above)
        above = os.path.dirname(above)
    for each in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(each)
        sync_folder(os.path.dirname(each))


def sync_file(path: str) -> None:
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(folder: str) -> None:
    out = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(out)
    finally:
        os.close(out)


def reflink(source: int, out: int) -> bool:
    try:
        fcntl.ioctl(out, _FICLONE, source)
    except OSError:
        return False  # another file system, or one that cannot: the bytes are copied
    return True


_LIBC = ctypes.CDLL(None, use_errno=True)
_KEEP_SIZE = 1  # linux/falloc.h
_BLOCK_BYTES = 512  # of `st_blocks`


def reserve(file: int, size: int) -> None:
    """Let the file system find the room of a whole file at once, where it can; its length stays as it is.

    Writing takes about half as long then, and a disk that cannot hold the file is full before the first byte and not
    after the last but one. Python's own call would write zeros where the file system has none.
    """
    call = getattr(_LIBC, "fallocate", None)
    if call is None or not size:
        return
    if call(file, ctypes.c_int(_KEEP_SIZE), ctypes.c_int64(0), ctypes.c_int64(size)):
        why = ctypes.get_errno()
        if why in FULL:
            raise OSError(why, os.strerror(why))


def held(path: str) -> int:
    """Bytes of the disk that a file has, or all below a folder: what is reserved, too, and 0 where nothing is."""
    if not os.path.isdir(path) or os.path.islink(path):
        try:
            return os.lstat(path).st_blocks * _BLOCK_BYTES
        except OSError:
            return 0
    return sum(held(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


_WRITE, _WRITE_AND_WAIT = 2, 7  # linux/fs.h: SYNC_FILE_RANGE_…


def begin_writing(file: int, offset: int, length: int) -> None:
    """Let the disk begin with a range; whether it succeeds the sync at the end will tell."""
    _sync_range(file, offset, length, _WRITE)


def forget(file: int, offset: int, length: int) -> None:
    """Wait until a range is on the disk, and let memory forget it, so that it is read from there."""
    _sync_range(file, offset, length, _WRITE_AND_WAIT)
    os.posix_fadvise(file, offset, length, os.POSIX_FADV_DONTNEED)


def _sync_range(file: int, offset: int, length: int, how: int) -> None:
    call = getattr(_LIBC, "sync_file_range", None)
    if call is not None:
        call(file, ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(how))
    elif how == _WRITE_AND_WAIT:
        os.fdatasync(file)


def copy_range(source: int, out: int, length: int, offset: int) -> int:
    """By the file system, where it can: shared blocks, or within a server."""
    return os.copy_file_range(source, out, length, offset, offset)


def send(source: int, out: int, length: int, offset: int) -> int:
    """By the kernel."""
    os.lseek(out, offset, os.SEEK_SET)
    return os.sendfile(out, source, offset, length)


def umask() -> int:
    with suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022  # not told here; setting it to read it would be seen by other threads


def explained(error: OSError, target: str) -> TransferError:
    """What a failed system call means for the person who asked for a copy to `target`."""
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else target
    if error.errno in FULL:
        sentence = f"The disk of '{target}' is full; nothing was left under its final name."
        return TransferError(sentence, "Free some space there.")
    if error.errno in _DENIED:
        return TransferRefused(f"'{place}' may not be written: {error.strerror}.")
    if error.errno in _IN_THE_WAY:
        return TransferRefused(f"Something else is in the way at '{place}': {error.strerror}.")
    if error.errno == errno.ENAMETOOLONG:
        return TransferRefused(f"The name '{place}' is too long for its file system.")
    return TransferError(f"The copy to '{target}' failed: {error.strerror or error}.")
