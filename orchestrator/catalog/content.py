"""What is in a file or a tree: its size and its checksums, read afresh. A checksum is written `algorithm:digest`.

That of a tree is over the names and checksums of its files (`checksums.whole`).
"""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from orchestrator.catalog import servers
from orchestrator.errors import ArgumentError, InputError, nearest
from orchestrator.outside import effect
from orchestrator.transfer import checksums, disk
from orchestrator.transfer.base import TransferDown
from orchestrator.transfer.ends import End, Listing
from orchestrator.transfer.survey import Fingerprint, survey

BLOCK_BYTES = 8 << 20
SILENCE_S = 120.0
AGAIN = "It may still be being written; try again later."
TELLING = ("sha256", "sha512", "sha1", "md5")  # kinds that a server is asked for in the place of the file's own

ALGORITHMS = checksums.CHOICE

Progress = Callable[[int], None]  # bytes read since the last call; may end the reading by an exception
Far = Callable[[int, int], None]  # bytes read so far, of all; so may this


class Sum(Struct, frozen=True):
    checksum: str
    size: int
    files: int = 1


def check_algorithm(name: str) -> None:
    """Raises ArgumentError."""
    if checksums.kind_of(name) != name:
        raise ArgumentError(
            f"There is no checksum {name!r}.{nearest(name, ALGORITHMS)}", f"Known: {', '.join(ALGORITHMS)}."
        )


def checksum(path: str, algorithm: str = checksums.USUAL, *, progress: Far | None = None) -> Sum:
    """Of a file or a tree of this host, which a link may name. Raises InputError: it is not there, empty, cannot be
    read, or changed meanwhile."""
    check_algorithm(algorithm)
    found, read = survey(path), 0

    def count(more: int) -> None:
        nonlocal read
        read += more
        if progress is not None:
            progress(read, found.bytes)

    try:
        sums = sums_here(os.path.realpath(found.root), found.files, [algorithm], count)
    except FileNotFoundError as error:
        raise InputError(f"'{error.filename}' went away while it was read.") from None
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}.") from None
    if survey(path).files != found.files:
        raise InputError(f"'{path}' changed while it was read.", AGAIN)
    return Sum(sums[algorithm], found.bytes, len(found.files))


def kind_of(checksum: str) -> str:
    """The algorithm of a checksum. Raises InputError for one that cannot be made here."""
    if kind := checksums.kind_of(checksum):
        return kind
    raise InputError(f"The checksum '{checksum}' cannot be compared.", "Nothing here makes such a one.")


def sums_here(root: str, names: Iterable[str], kinds: Sequence[str], progress: Progress) -> dict[str, str]:
    """Of a file or a tree of this host, of several kinds in one reading. Raises InputError when it changes, OSError."""
    parts = {name: _sums_of_file(disk.below(root, name), kinds, progress) for name in names}
    return {kind: checksums.whole(kind, {name: sums[kind] for name, sums in parts.items()}) for kind in kinds}


def sums_there(end: End, listing: Listing, kind: str) -> str:
    """Of a file or a tree on a server that tells this kind."""
    parts = {}
    for name, entry in listing.files.items():
        digest = end.digest(disk.below(listing.root, name), kind, 0, entry.size) if entry.size else ""
        if entry.size and not digest:
            raise InputError(f"'{end.shown(disk.below(listing.root, name))}' is not there any more.")
        parts[name] = digest or checksums.new(kind).hexdigest()
    return checksums.whole(kind, parts)


def sums_over_the_wire(end: End, listing: Listing, kind: str, progress: Progress) -> str:
    """Of a file or a tree on a server that tells other kinds: its bytes are fetched, and kept nowhere."""
    parts = {}
    for name, entry in listing.files.items():
        total, size = checksums.new(kind), 0
        for block in _fetched(end.url(disk.below(listing.root, name))) if entry.size else ():
            total.update(block)
            size += len(block)
            progress(len(block))
        if size != entry.size:
            raise InputError(f"'{end.shown(disk.below(listing.root, name))}' changed while it was read.")
        parts[name] = total.hexdigest()
    return checksums.whole(kind, parts)


def _sums_of_file(path: str, kinds: Sequence[str], progress: Progress) -> dict[str, str]:
    totals = {kind: checksums.new(kind) for kind in kinds}
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        before = Fingerprint.of(os.fstat(handle))
        # What is in memory says nothing about the disk.
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while block := os.read(handle, BLOCK_BYTES):
            for total in totals.values():
                total.update(block)
            progress(len(block))
        if Fingerprint.of(os.fstat(handle)) != before:
            raise InputError(f"'{path}' changed while it was read.", AGAIN)
    finally:
        os.close(handle)
    return {kind: total.hexdigest() for kind, total in totals.items()}


def _fetched(url: str) -> Iterator[bytes]:
    with effect("transfer.run"):
        process = subprocess.Popen(
            servers.to_stdout(url), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        while True:
            ready, _, _ = select.select([process.stdout], [], [], SILENCE_S)
            if not ready:
                raise TransferDown(f"Nothing was heard of '{url}' for {SILENCE_S:g} s.", "It is tried again later.")
            if not (block := os.read(process.stdout.fileno(), BLOCK_BYTES)):
                break
            yield block
        said = process.stderr.read().decode(errors="backslashreplace")
        if process.wait():
            raise servers.explained(said, url)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
