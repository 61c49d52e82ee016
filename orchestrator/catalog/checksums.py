"""Checksums of files and trees, written `algorithm:digest`: xxh3 for speed, SHA-256 or MD5 where others ask for them.

That of a tree is over the names, sizes and checksums of its files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from orchestrator.errors import ArgumentError, InputError, nearest
from orchestrator.transfer import checksums
from orchestrator.transfer.survey import Fingerprint, survey

BLOCK_BYTES = 8 << 20
ALGORITHMS = checksums.CHOICE

Progress = Callable[[int, int], None]  # bytes done, of all; may end the reading by an exception


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


def checksum(path: str, algorithm: str = "xxh3", *, progress: Progress | None = None) -> Sum:
    """Of a file or a tree. Raises InputError: it is not there, empty, cannot be read, or changed meanwhile."""
    check_algorithm(algorithm)
    found = survey(path)
    done, digests = 0, {}
    for name, print_ in found.files.items():
        digest = checksums.new(algorithm)
        for block in _blocks(found.path(name), print_):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, found.bytes)
        digests[name] = digest.hexdigest()
    return Sum(checksums.whole(algorithm, digests), found.bytes, len(digests))


def _blocks(path: str, expected: Fingerprint) -> Any:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"'{path}' went away while it was read.") from None
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}.") from None
    try:
        while block := os.read(handle, BLOCK_BYTES):
            yield block
        if Fingerprint.of(os.fstat(handle)) != expected:
            raise InputError(f"'{path}' changed while it was read.", "It may still be being written; try again later.")
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}.") from None
    finally:
        os.close(handle)
