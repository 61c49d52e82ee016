"""Copies on one host: nothing stands under its final name before it is whole, verified and on disk.

A file is written to `NAME.part`, read back and compared, synced and renamed. A tree whose destination is
not there yet is made as `NAME.part` and appears at once, because a Zarr with half of its chunks opens;
into a tree that is there, file by file. Contents of a source directory land directly in the destination, so
doing it twice changes nothing. Small files go side by side, because what they take is waiting for the disk.

What is there already with the right size and checksum is skipped, so an interrupted copy goes on where it
was. Files get the permissions of the source within the umask and the time of the copy. Links within a tree
are kept, relative.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import InputError, nearest
from orchestrator.outside import effect
from orchestrator.transfer import checksums, disk, pump
from orchestrator.transfer.base import TransferCancelled, TransferError, TransferRefused, TransferReport
from orchestrator.transfer.survey import Fingerprint, Survey, survey

OPTIONS = ("checksum", "read_back")
READ_BACK = ("memory", "disk")
SIDE_BY_SIDE = 8  # small files
BATCH = 64  # small files that a thread takes at once
CHECKS = ("checksum", "size")  # size is always compared
MARGIN_BYTES = 16 << 20  # left free, or one per cent of what is copied if that is more

Progress = Callable[[int, int], None]


def copy(
    source: str,
    destination: str,
    *,
    checks: Sequence[str] | str = ("checksum",),
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> TransferReport:
    """Copy a file or a tree; `progress(bytes, total)` and `cancelled()` are called once a block, by one
    thread at a time.

    A file goes *into* a destination that is a directory or ends in `/`. Options: `checksum` (of `checksums.CHOICE`),
    `read_back` from `memory` or from `disk`. `InputError`: the source is at fault; `TransferError`: the rest, with its
    failure class.
    """
    begun = time.monotonic()
    verify = "checksum" in checked(checks)
    kind, from_disk = _chosen(options or {})
    listed = survey(source)
    target = _target(listed, destination)
    _check_place(listed, target)
    job = _Job(listed, kind if verify else "", from_disk, progress, cancelled)
    try:
        if listed.is_tree:
            _copy_tree(job, target)
        else:
            disk.make_folder(os.path.dirname(target))
            _check_space(listed, target)
            job.digests[""] = _copy_file(job, "", target, disk.part_of(target))
            disk.sync_folder(os.path.dirname(target))
    except OSError as error:
        raise disk.explained(error, target) from error
    return TransferReport(
        destination=target,
        files=len(listed.files),
        bytes=listed.bytes,
        skipped=job.skipped,
        skipped_bytes=job.skipped_bytes,
        reflinked=job.reflinked,
        seconds=time.monotonic() - begun,
        checksum=job.checksum(),
    )


def checked(checks: Sequence[str] | str) -> Sequence[str]:
    """The checks that were asked for, if there are such."""
    checks = (checks,) if isinstance(checks, str) else checks
    for check in checks:
        if check not in CHECKS:
            raise TransferRefused(f"There is no transfer check {check!r}.{nearest(check, CHECKS)}")
    return checks


def _chosen(options: Mapping[str, Any]) -> tuple[str, bool]:
    for name in options:
        if name not in OPTIONS:
            raise TransferRefused(f"A copy between paths has no option {name!r}.{nearest(name, OPTIONS)}")
    place = options.get("read_back", READ_BACK[0])
    if place not in READ_BACK:
        raise TransferRefused(f"A copy is read back from memory or from disk, and not from {place!r}.")
    return checksums.chosen(options), place == "disk"


@dataclass
class _Job:
    """One copy on its way: what it was asked, and what it has counted."""

    listed: Survey
    kind: str  # of checksum; empty: none is made
    from_disk: bool
    progress: Progress | None
    cancelled: Callable[[], bool] | None
    umask: int = field(default_factory=disk.umask)
    done: int = 0
    skipped: int = 0
    skipped_bytes: int = 0
    reflinked: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    ended: bool = False  # something went wrong: threads leave off
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def advance(self, bytes_done: int) -> None:
        with self._lock:
            self.done += bytes_done
            if self.progress and bytes_done > 0:
                self.progress(self.done, self.listed.bytes)
            self.look()

    def look(self) -> None:
        with self._lock:
            if self.ended or (self.cancelled and self.cancelled()):
                raise TransferCancelled(f"The copy of '{self.listed.root}' was cancelled.")

    def count(self, *, skipped: int = -1, reflinked: int = 0) -> None:
        with self._lock:
            self.reflinked += reflinked
            if skipped >= 0:
                self.skipped, self.skipped_bytes = self.skipped + 1, self.skipped_bytes + skipped

    def checksum(self) -> str:
        return checksums.whole(self.kind, self.digests) if self.kind else ""


# ------------------------------------------------------------------------------------------------- before it


def _target(listed: Survey, destination: str) -> str:
    if not destination or "\0" in destination:
        raise TransferRefused(f"The destination '{destination}' is not a path.")
    target = os.path.abspath(destination)
    if listed.is_tree:
        if os.path.lexists(target) and not os.path.isdir(target):
            raise TransferRefused(f"The destination '{target}' is a file and the source a directory.")
        return target
    if destination.endswith("/") or os.path.isdir(target):
        target = os.path.join(target, os.path.basename(listed.root))
    if os.path.isdir(target):
        raise TransferRefused(f"The destination '{target}' is a directory and the source a file.")
    return target


def _check_place(listed: Survey, target: str) -> None:
    """The destination is somewhere else than the source, and may be written."""
    real, root = os.path.realpath(target), os.path.realpath(listed.root)
    if real == root or (os.path.exists(target) and os.path.samefile(target, listed.root)):
        raise TransferRefused(f"The source and the destination are both '{target}'.")
    if listed.is_tree and os.path.commonpath((real, root)) == root:
        raise TransferRefused(f"The destination '{target}' is inside the source.")
    if listed.is_tree and os.path.commonpath((real, root)) == real:
        raise TransferRefused(f"The source '{listed.root}' is inside the destination.")
    place = _existing(target if listed.is_tree else os.path.dirname(target))
    if not os.path.isdir(place):
        raise TransferRefused(f"The destination '{target}' lies below '{place}', which is a file.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise TransferRefused(f"The directory '{place}' may not be written.", "Ask its owner for permission.")


def _existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _check_space(listed: Survey, target: str, *, fresh: bool = False) -> None:
    there = sum(f.size for n, f in listed.files.items() if _size(disk.below(target, n)) == f.size)
    needed = listed.bytes - there
    if not needed:
        return
    needed += max(MARGIN_BYTES, listed.bytes // 100)
    place = _existing(target)
    room = os.statvfs(place)
    free = room.f_bavail * room.f_frsize
    if free < needed and free + _held_by_us(listed, target, fresh=fresh) < needed:
        sentence = f"The disk of '{place}' has {free:,} bytes free and the copy needs {needed:,}."
        raise TransferError(sentence, "Free some space there.")


def _held_by_us(listed: Survey, target: str, *, fresh: bool) -> int:
    """Bytes of the disk that a killed copy has left, to be written again; with `fresh` under the names themselves."""
    paths = ((disk.below(target, name), seen.size) for name, seen in listed.files.items())
    return sum(disk.held(path if fresh else disk.part_of(path)) for path, size in paths if _size(path) != size)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return -1


# ---------------------------------------------------------------------------------------------------- trees


def _copy_tree(job: _Job, target: str) -> None:
    fresh = not os.path.isdir(target)
    place = disk.part_of(target) if fresh else target
    _check_space(job.listed, place, fresh=fresh)
    disk.make_folder(place)
    with disk.locked_folder(place):
        try:
            _fill(job, place, fresh=fresh)
            if survey(job.listed.root) != job.listed:
                raise _changed(job.listed.root)
            if fresh:
                _no_strangers(job.listed, place)
                with effect("file.publish"):
                    os.rename(place, target)
                disk.sync_folder(os.path.dirname(target))
        except BaseException as error:
            # What was copied stays for the next try, unless the room is needed or nobody wants it any more.
            unwanted = isinstance(error, TransferCancelled) or (isinstance(error, OSError) and error.errno in disk.FULL)
            if fresh and unwanted:
                shutil.rmtree(place, ignore_errors=True)
            raise


def _fill(job: _Job, place: str, *, fresh: bool) -> None:
    for name in job.listed.folders:
        folder = os.path.join(place, name)
        if os.path.islink(folder):
            raise TransferRefused(f"The destination holds the link '{folder}' where the source has a directory.")
        os.makedirs(folder, exist_ok=True)
    _copy_files(job, place, fresh=fresh)
    for name, to in job.listed.links.items():
        link = os.path.join(place, name)
        if os.path.islink(link) and os.readlink(link) == to:
            continue
        with suppress(FileNotFoundError):
            os.unlink(link)
        os.symlink(to, link)
    for name in ("", *job.listed.folders):
        disk.sync_folder(disk.below(place, name))


def _copy_files(job: _Job, place: str, *, fresh: bool) -> None:
    """Small ones side by side, then the others one by one: each of those keeps a disk busy."""

    def one(name: str) -> None:
        target = os.path.join(place, name)
        # Nobody sees a tree before it is whole: its files need no other name until then.
        job.digests[name] = _copy_file(job, name, target, target if fresh else disk.part_of(target))

    def batch(names: Sequence[str]) -> None:
        for name in names:
            one(name)

    small = [name for name, seen in job.listed.files.items() if seen.size <= pump.BLOCK_BYTES]
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="copy") as pool:
        copying = [pool.submit(batch, small[start : start + BATCH]) for start in range(0, len(small), BATCH)]
        try:
            for each in copying:
                each.result()
        except BaseException:
            job.ended = True
            raise
    batch([name for name, seen in job.listed.files.items() if seen.size > pump.BLOCK_BYTES])


def _no_strangers(listed: Survey, place: str) -> None:
    """Remove what an earlier, interrupted copy left and the source holds no more."""
    known = {*listed.files, *listed.links, *listed.folders}
    for folder, folders, names in os.walk(place, topdown=False):
        for name in (*names, *folders):
            path = os.path.join(folder, name)
            if os.path.relpath(path, place) in known:
                continue
            if os.path.isdir(path) and not os.path.islink(path):
                os.rmdir(path)
            else:
                os.unlink(path)


# ---------------------------------------------------------------------------------------------------- files


def _copy_file(job: _Job, name: str, target: str, part: str) -> str:
    """Copy one file by way of `part` and answer its checksum (empty when none was asked)."""
    path, seen = job.listed.path(name), job.listed.files[name]
    job.look()
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_NOFOLLOW if name else 0))
    except OSError as error:
        raise InputError(f"The source '{path}' cannot be read: {error.strerror}.") from error
    try:
        status = os.fstat(source)
        if Fingerprint.of(status) != seen:
            raise _changed(path)
        mode = stat.S_IMODE(status.st_mode) & 0o777 & ~job.umask
        digest = _same(job, source, seen.size, target, mode if part == target else None)
        if digest is not None:
            job.count(skipped=seen.size)
        else:
            digest = _write(job, source, path, seen, target, part, mode)
        _check_unchanged(path, seen)
    except pump.SourceEnded:
        raise _changed(path) from None
    finally:
        os.close(source)
    return digest


def _same(job: _Job, source: int, size: int, target: str, mode: int | None) -> str | None:
    """The common checksum if `target` is a regular file with the very bytes of `source`, else None.

    With `mode` it is of a copy that was interrupted, perhaps before it had its permissions and was on the disk.
    """
    if not job.kind or _size(target) != size or os.path.islink(target):
        return None
    try:
        there = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    alike = 0

    def moved(more: int) -> None:
        nonlocal alike
        alike += more
        job.advance(more)

    try:
        digest = pump.same(source, there, size, job.kind, moved=moved)
        if digest is not None and mode is not None:
            os.fchmod(there, mode)
            os.fsync(there)
    finally:
        os.close(there)
    if digest is None:
        job.advance(-alike)
    return digest


def _write(job: _Job, source: int, path: str, seen: Fingerprint, target: str, part: str, mode: int) -> str:
    with disk.part_file(part) as out:
        try:
            digest = _fill_file(job, source, out, seen.size, target)
            os.fchmod(out, mode)
            os.fsync(out)
            _check_unchanged(path, seen)
            if os.fstat(out).st_size != seen.size:
                raise TransferError(f"The copy '{target}' is not as long as its source.")
            if part != target:
                with effect("file.publish"):
                    os.rename(part, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
    return digest


def _fill_file(job: _Job, source: int, out: int, size: int, target: str) -> str:
    os.posix_fadvise(source, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    if size and disk.reflink(source, out):
        job.count(reflinked=1)
        digest = pump.digest(out, size, job.kind, job.look) if job.kind else ""
        job.advance(size)
        return digest
    if size > pump.BLOCK_BYTES:
        disk.reserve(out, size)
    if not job.kind:
        pump.unchecked(source, out, size, moved=job.advance)
        return ""
    try:
        return pump.pump(source, out, size, kind=job.kind, from_disk=job.from_disk, moved=job.advance)
    except pump.ReadBackDiffers as error:
        raise TransferError(f"The copy '{target}' reads back with another checksum ({error}).") from None


def _check_unchanged(path: str, seen: Fingerprint) -> None:
    try:
        now = Fingerprint.of(os.stat(path))
    except FileNotFoundError:
        raise _changed(path) from None
    if now != seen:
        raise _changed(path)


def _changed(path: str) -> TransferError:
    return TransferError(f"The source '{path}' changed while it was copied.", "It may still be being written.")
