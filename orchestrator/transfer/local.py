"""Copies on one host: nothing stands under its final name before it is whole, verified and on disk.

A file is written to `NAME.part`, read back and compared, synced and renamed. A tree whose destination is
not there yet is made as `NAME.part` too and appears at once, because a Zarr with half of its chunks opens;
into a tree that is there, file by file. Contents of a source directory land directly in the destination, so
doing it twice changes nothing.

What is there already with the right size and checksum is skipped, so an interrupted copy goes on where it
was. Files get the permissions of the source within the umask and the time of the copy. Links within a tree
are kept, relative.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from orchestrator.errors import InputError, nearest
from orchestrator.outside import effect
from orchestrator.transfer import disk
from orchestrator.transfer.base import TransferCancelled, TransferError, TransferRefused, TransferReport
from orchestrator.transfer.survey import Fingerprint, Survey, survey, tree_digest

BLOCK_BYTES = 8 << 20
CHECKS = ("checksum", "size")  # size is always compared
MARGIN_BYTES = 16 << 20  # left free, or one per cent of what is copied if that is more

Progress = Callable[[int, int], None]


def copy(
    source: str,
    destination: str,
    *,
    checks: Sequence[str] | str = ("checksum",),
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> TransferReport:
    """Copy a file or a tree; `progress(bytes, total)` and `cancelled()` are called once a block.

    A file goes *into* a destination that is a directory or ends in `/`. `InputError`: the source is at fault;
    `TransferError`: the rest, with its failure class.
    """
    begun = time.monotonic()
    checks = (checks,) if isinstance(checks, str) else checks
    for check in checks:
        if check not in CHECKS:
            raise TransferRefused(f"There is no transfer check {check!r}.{nearest(check, CHECKS)}")
    listed = survey(source)
    target = _target(listed, destination)
    _check_place(listed, target)
    job = _Job(listed, "checksum" in checks, progress, cancelled)
    try:
        if listed.is_tree:
            _copy_tree(job, target)
        else:
            disk.make_folder(os.path.dirname(target))
            _check_space(listed, target)
            job.digests[""] = _copy_file(job, "", target)
            disk.sync_folder(os.path.dirname(target))
    except OSError as error:
        raise disk.explained(error, target) from error
    checksum = (
        job.digests.get("", "")
        if not listed.is_tree
        else tree_digest((n, listed.files[n].size, digest) for n, digest in job.digests.items())
    )
    return TransferReport(
        destination=target,
        files=len(listed.files),
        bytes=listed.bytes,
        skipped=job.skipped,
        skipped_bytes=job.skipped_bytes,
        reflinked=job.reflinked,
        seconds=time.monotonic() - begun,
        checksum=f"sha256:{checksum}" if job.verify else "",
    )


@dataclass
class _Job:
    """One copy on its way: what it was asked, and what it has counted."""

    listed: Survey
    verify: bool
    progress: Progress | None
    cancelled: Callable[[], bool] | None
    done: int = 0
    skipped: int = 0
    skipped_bytes: int = 0
    reflinked: int = 0
    digests: dict[str, str] = field(default_factory=dict)

    def advance(self, bytes_done: int) -> None:
        self.done += bytes_done
        if self.progress:
            self.progress(self.done, self.listed.bytes)
        self.look()

    def look(self) -> None:
        if self.cancelled and self.cancelled():
            raise TransferCancelled(f"The copy of '{self.listed.root}' was cancelled.")


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


def _check_space(listed: Survey, target: str) -> None:
    there = sum(f.size for n, f in listed.files.items() if _size(disk.below(target, n)) == f.size)
    needed = listed.bytes - there
    if not needed:
        return
    needed += max(MARGIN_BYTES, listed.bytes // 100)
    place = _existing(target)
    room = os.statvfs(place)
    if (free := room.f_bavail * room.f_frsize) < needed:
        sentence = f"The disk of '{place}' has {free:,} bytes free and the copy needs {needed:,}."
        raise TransferError(sentence, "Free some space there.")


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return -1


# ---------------------------------------------------------------------------------------------------- trees


def _copy_tree(job: _Job, target: str) -> None:
    fresh = not os.path.isdir(target)
    place = disk.part_of(target) if fresh else target
    _check_space(job.listed, place)
    disk.make_folder(place)
    with disk.locked_folder(place):
        try:
            _fill(job, place)
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


def _fill(job: _Job, place: str) -> None:
    for name in job.listed.folders:
        folder = os.path.join(place, name)
        if os.path.islink(folder):
            raise TransferRefused(f"The destination holds the link '{folder}' where the source has a directory.")
        os.makedirs(folder, exist_ok=True)
    for name in job.listed.files:
        job.digests[name] = _copy_file(job, name, os.path.join(place, name))
    for name, to in job.listed.links.items():
        link = os.path.join(place, name)
        if os.path.islink(link) and os.readlink(link) == to:
            continue
        with suppress(FileNotFoundError):
            os.unlink(link)
        os.symlink(to, link)
    for name in ("", *job.listed.folders):
        disk.sync_folder(disk.below(place, name))


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


def _copy_file(job: _Job, name: str, target: str) -> str:
    """Copy one file and answer its checksum (empty when none was asked)."""
    path, seen = job.listed.path(name), job.listed.files[name]
    job.look()
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_NOFOLLOW if name else 0))
    except OSError as error:
        raise InputError(f"The source '{path}' cannot be read: {error.strerror}.") from error
    try:
        if Fingerprint.of(os.fstat(source)) != seen:
            raise _changed(path)
        if (digest := _same(job, source, seen.size, target)) is not None:
            job.skipped, job.skipped_bytes = job.skipped + 1, job.skipped_bytes + seen.size
        else:
            digest = _write(job, source, path, seen, target)
        _check_unchanged(path, seen)
    finally:
        os.close(source)
    return digest


def _same(job: _Job, source: int, size: int, target: str) -> str | None:
    """The common checksum if `target` is a regular file with the very bytes of `source`, else None."""
    if not job.verify or _size(target) != size or os.path.islink(target):
        return None
    try:
        there = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        digest, offset = hashlib.sha256(), 0
        while block := os.pread(source, BLOCK_BYTES, offset):
            if os.pread(there, len(block), offset) != block:
                job.done -= offset
                return None
            digest.update(block)
            offset += len(block)
            job.advance(len(block))
        return digest.hexdigest()
    finally:
        os.close(there)


def _write(job: _Job, source: int, path: str, seen: Fingerprint, target: str) -> str:
    part = disk.part_of(target)
    with disk.part_file(part) as out:
        try:
            shared = disk.reflink(source, out)
            digest = "" if shared else _pump(job, source, out, seen.size, path)
            os.fchmod(out, os.fstat(source).st_mode & 0o777 & ~disk.umask())
            os.fsync(out)
            if shared:
                job.reflinked += 1
                digest = _digest(job, out) if job.verify else ""
                job.advance(seen.size)
            elif job.verify:
                # Read what the disk holds, not what memory still remembers.
                os.posix_fadvise(out, 0, 0, os.POSIX_FADV_DONTNEED)
                os.posix_fadvise(out, 0, 0, os.POSIX_FADV_SEQUENTIAL)  # measured: 2.5 times as fast
                if (read := _digest(job, out)) != digest:
                    seen_sums = f"{read[:12]}, wanted {digest[:12]}"
                    raise TransferError(f"The copy '{target}' reads back with another checksum ({seen_sums}).")
            _check_unchanged(path, seen)
            if os.fstat(out).st_size != seen.size:
                raise TransferError(f"The copy '{target}' is not as long as its source.")
            with effect("file.publish"):
                os.rename(part, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
    return digest


def _pump(job: _Job, source: int, out: int, size: int, path: str) -> str:
    digest = hashlib.sha256()
    os.posix_fadvise(source, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    os.lseek(source, 0, os.SEEK_SET)
    moved = 0
    while moved <= size:
        if job.verify:
            block = os.read(source, BLOCK_BYTES)
            digest.update(block)
            length, view = len(block), memoryview(block)
            while view:
                view = view[os.write(out, view) :]
        else:
            length = os.sendfile(out, source, None, BLOCK_BYTES)
        if not length:
            break
        moved += length
        job.advance(length)
    if moved != size:
        raise _changed(path)
    return digest.hexdigest() if job.verify else ""


def _digest(job: _Job, file: int) -> str:
    digest, offset = hashlib.sha256(), 0
    while block := os.pread(file, BLOCK_BYTES, offset):
        digest.update(block)
        offset += len(block)
        job.look()
    return digest.hexdigest()


def _check_unchanged(path: str, seen: Fingerprint) -> None:
    try:
        now = Fingerprint.of(os.stat(path))
    except FileNotFoundError:
        raise _changed(path) from None
    if now != seen:
        raise _changed(path)


def _changed(path: str) -> TransferError:
    return TransferError(f"The source '{path}' changed while it was copied.", "It may still be being written.")
