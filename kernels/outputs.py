"""Outputs appear whole or not at all: `.part` sibling, check, fsync, rename.

The `.part` is locked (flock) while its writer lives. A killed writer loses the lock, so its leftover is recognised
and replaced; a living second writer of the same output is refused as transient. Where the file system has no locks,
the inode is compared before the rename, so that nobody publishes another's half.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kernels import resume
from kernels.errors import Exit, KernelError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_IO = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PASSING = {errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EINTR, errno.EBUSY, errno.ENOMEM, errno.EMFILE}
LAST_WRITES_S = 0.3  # from the end of a kernel to the last write of its threads
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")


@dataclass(slots=True)
class Staged:
    """One claimed output: written at `part`, to be published as `final`.

    `check` looks at the written part and raises `KernelError` when it is not what it should be. `facts` are recorded
    in the manifest (shape, dtype, finite fraction).
    """

    final: Path
    part: Path
    directory: bool
    descriptor: int
    check: Callable[[Path], None] | None = None
    needs: int = 0  # bytes, as far as that is known beforehand
    resumable: bool = False  # a run that was interrupted leaves it for the next
    facts: dict[str, object] = field(default_factory=dict)


def io_error(error: OSError, doing: str, otherwise: Exit = Exit.IO) -> KernelError:
    """`error` as a sentence; the exit code comes from its errno, or is `otherwise`."""
    number = _number(error)
    text = os.strerror(number) if number else error.strerror or str(error)
    code = Exit.IO if number in _IO else Exit.TRANSIENT if number in _PASSING else otherwise
    return KernelError(f"{doing}: {text}.", code)


def _number(error: OSError) -> int | None:
    """HDF5 puts the errno only into its message."""
    hidden = (code for code in _IO | _PASSING if f"errno = {code}," in str(error))
    return error.errno or next(hidden, None)


def failed_write(error: OSError, staged: Sequence[Staged], doing: str) -> KernelError:
    """`error` of a kernel that held these outputs: without room on the disk, with the output and how much it needs."""
    if not staged or _number(error) not in _FULL:
        return io_error(error, f"{doing} could not read or write")
    named = (one for one in staged if str(error.filename or "").startswith(str(one.part)))
    one = next(named, staged[-1])  # what was claimed last is being written
    needs = f", which needs {shown(one.needs)}" if one.needs else ""
    hint = " Free some space or raise the quota, or choose another place."
    return io_error(error, f"{doing} could not write the output {str(one.final)!r}{needs}").with_hint(hint)


def shown(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.2g} MB"


def claim(path: str | Path, *, directory: bool = False, run: str = "", needs: int = 0) -> Staged:
    """Reserve `path` and return where to write: with `run`, in what a killed run of this fingerprint has left there.

    `needs`: how many bytes will be written; 0 where that is not known.

    Raises
    ------
    KernelError
        Exit 73 when the output cannot be created or what is there must not be replaced; 75 when another live process
        is writing it; 74 when there is less free space than it needs.
    """
    final = Path(os.path.abspath(path))
    _refuse_to_replace(final, directory=directory)
    part = final.with_name(final.name + ".part")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if not (run and resume.is_of(part, run)):
            _remove_leftover(part)
            _refuse_without_room(final, needs)
            if directory:
                part.mkdir()
            else:
                part.touch(exist_ok=False)
        descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        _lock(descriptor, part)
    except FileExistsError as error:
        raise _busy(part) from error
    except OSError as error:
        raise io_error(error, f"Cannot create the output {str(final)!r}", Exit.CANNOT_CREATE) from error
    return Staged(final, part, directory, descriptor, needs=needs, resumable=bool(run))


def publish(staged: Staged) -> None:
    """Bring a checked part to disk and to its final name."""
    try:
        if not _is_ours(staged):
            raise _busy(staged.part)
        _sync(staged.part)
        if staged.directory and staged.final.is_dir():
            _exchange(staged.part, staged.final)
        else:
            os.replace(staged.part, staged.final)
        _sync_one(staged.final.parent)
    except OSError as error:
        raise io_error(error, f"Cannot publish the output {str(staged.final)!r}") from error
    finally:
        _close(staged)


def discard(staged: Staged, *, interrupted: bool = False) -> None:
    """Remove the part of a failed run, unless it was published or is another's by now, or another run can go on with it
    since this one was only interrupted."""
    if staged.descriptor < 0:
        return
    if interrupted and staged.resumable and resume.holds_any(staged.part):
        _close(staged)
        return
    with contextlib.suppress(OSError):
        if _is_ours(staged):
            _remove_written(staged)
    _close(staged)


def _is_ours(staged: Staged) -> bool:
    return os.fstat(staged.descriptor).st_ino == os.lstat(staged.part).st_ino


def _remove_written(staged: Staged) -> None:
    """Threads may still be writing into a directory: they add a file behind our back, or make it anew."""
    if not staged.directory:
        _remove(staged.part)
        return
    with contextlib.suppress(OSError):
        _remove(staged.part)
    quiet_at = time.monotonic() + LAST_WRITES_S
    while time.monotonic() < quiet_at:
        time.sleep(LAST_WRITES_S / 20)
        with contextlib.suppress(OSError, KernelError):
            if staged.part.exists() and _is_ours(staged):
                _remove(staged.part)
            else:
                _remove_leftover(staged.part)


def _close(staged: Staged) -> None:
    if staged.descriptor >= 0:
        os.close(staged.descriptor)
        staged.descriptor = -1


def _busy(part: Path) -> KernelError:
    return KernelError(f"Another process is writing {str(part)!r}; try again when it has ended.", Exit.TRANSIENT)


def _refuse_to_replace(final: Path, *, directory: bool) -> None:
    """Only what a kernel could have written is replaced: a regular file, or a directory that is a Zarr."""
    try:
        mode = os.lstat(final).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise io_error(error, f"Cannot create the output {str(final)!r}", Exit.CANNOT_CREATE) from error
    if stat.S_ISLNK(mode):
        what = "a symbolic link"
    elif stat.S_ISDIR(mode):
        ours = any((final / mark).is_file() for mark in _ZARR_MARKS) or not any(final.iterdir())
        if directory and ours:
            return
        what = "a directory that is not a Zarr" if directory else "a directory"
    elif stat.S_ISREG(mode) and not directory:
        return
    else:
        what = "a file" if stat.S_ISREG(mode) else "a device, pipe or socket"
    raise KernelError(f"The output {str(final)!r} is {what}; it is not replaced.", Exit.CANNOT_CREATE)


def _refuse_without_room(final: Path, needs: int) -> None:
    """Before hours of work go into what cannot be written. Some file systems do not say how much is free: 0 of 0."""
    free = _free(final.parent)
    if 0 <= free < needs:
        raise KernelError(
            f"The output {str(final)!r} needs {shown(needs)}, and {shown(free)} are free there. Free some space, or "
            "choose another place.",
            Exit.IO,
        )


def _free(folder: Path) -> int:
    """Bytes that may be written there; -1 where that is not known."""
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize if told.f_blocks else -1


def _remove_leftover(part: Path) -> None:
    try:
        descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _lock(descriptor, part)
        _remove(part)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, part: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _busy(part) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    if path.is_dir():
        for folder, _, files in os.walk(path):
            for name in files:
                _sync_one(Path(folder, name))
            _sync_one(Path(folder))
    else:
        _sync_one(path)


def _exchange(part: Path, final: Path) -> None:
    """Put a directory in the place of another. On Linux one step (`RENAME_EXCHANGE`).

    Elsewhere, and on file systems without it, the old one steps aside first: for that moment nothing is under the
    final name, but never a half.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        renameat2 = None
    names = os.fsencode(part), os.fsencode(final)
    if renameat2 and renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        shutil.rmtree(part)
        return
    aside = final.with_name(final.name + ".old")
    if aside.exists():
        shutil.rmtree(aside)
    os.rename(final, aside)
    os.rename(part, final)
    shutil.rmtree(aside)
