"""The bytes of one file: read, written, read back and compared, all three at once.

What was written is asked to go to the disk a window at a time, so that little is left for the sync at the end; a reader
beside the writer makes the checksum, and another thread reads back what has been written. That tells what went wrong
between two reads of memory; `from_disk` makes it wait for the disk, forget and read anew, at the rate of the disk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import xxhash

from orchestrator.transfer import checksums, disk

BLOCK_BYTES = 1 << 20  # what stays in a processor's cache from reading over the checksum to writing
WINDOW_BLOCKS = 32
# Written at once: file systems take as much memory in one piece, and a virtual machine that gave its memory back takes
# twice as long to fill a piece of 1 MiB as one of 128 KiB.
WRITE_BYTES = 128 << 10
AHEAD = 3  # blocks that are read and not yet written


class SourceEnded(Exception):
    """It is shorter than it was."""


class ReadBackDiffers(Exception):
    """What stands there is not what was written."""


def pump(source: int, out: int, size: int, *, kind: str, from_disk: bool, moved: Callable[[int], None]) -> str:
    """Copy `size` bytes, call `moved(bytes)` after each block, and answer the checksum of `kind` of what was read."""
    seen, compared = checksums.new(checksums.USUAL), checksums.new(checksums.USUAL)
    wanted = seen if kind == checksums.USUAL else checksums.new(kind)
    spare = memoryview(bytearray(min(BLOCK_BYTES, size)))

    def fill(buffer: memoryview, offset: int) -> memoryview:
        block = _read(source, buffer[: size - offset], offset)
        seen.update(block)
        if wanted is not seen:
            wanted.update(block)
        return block

    def check(begin: int, end: int) -> None:
        if from_disk:
            disk.forget(out, begin, end - begin)
        for offset in range(begin, end, BLOCK_BYTES):
            compared.update(_read(out, spare[: end - offset], offset))

    if size <= BLOCK_BYTES:  # threads would cost more than they save
        _write(out, fill(memoryview(bytearray(size)), 0), 0)
        check(0, size)
        moved(size)
    else:
        _side_by_side(out, size, fill, check, moved)
    if seen.hexdigest() != compared.hexdigest():
        raise ReadBackDiffers(f"{compared.hexdigest()[:12]}, wanted {seen.hexdigest()[:12]}")
    return wanted.hexdigest()


def _side_by_side(
    out: int,
    size: int,
    fill: Callable[[memoryview, int], memoryview],
    check: Callable[[int, int], None],
    moved: Callable[[int], None],
) -> None:
    offsets = iter(range(0, size, BLOCK_BYTES))
    coming: deque[tuple[memoryview, int, Future[memoryview]]] = deque()
    checks: deque[Future[None]] = deque()
    begin = 0
    with _thread("read") as reader, _thread("check") as checker:

        def ahead(buffer: memoryview) -> None:
            if (offset := next(offsets, None)) is not None:
                coming.append((buffer, offset, reader.submit(fill, buffer, offset)))

        for _ in range(AHEAD):
            ahead(memoryview(bytearray(BLOCK_BYTES)))
        while coming:
            buffer, offset, filled = coming.popleft()
            block = filled.result()
            _write(out, block, offset)
            end = offset + len(block)
            ahead(buffer)
            if end - begin >= WINDOW_BLOCKS * BLOCK_BYTES or end == size:
                disk.begin_writing(out, begin, end - begin)
                checks.append(checker.submit(check, begin, end))
                begin = end
            while checks and checks[0].done():
                checks.popleft().result()
            moved(len(block))
        for each in checks:
            each.result()


@contextmanager
def _thread(name: str) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"copy-{name}")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def unchecked(source: int, out: int, size: int, *, moved: Callable[[int], None]) -> None:
    """Copy without a look at the bytes: the file system does it, or the kernel."""
    done, step = 0, disk.copy_range
    while done < size:
        try:
            length = step(source, out, min(size - done, WINDOW_BLOCKS * BLOCK_BYTES), done)
        except OSError:
            if step is not disk.copy_range:
                raise
            step = disk.send  # these two file systems cannot do it between them
            continue
        if not length:
            raise SourceEnded
        disk.begin_writing(out, done, length)
        done += length
        moved(length)


def digest(file: int, size: int, kind: str, look: Callable[[], None]) -> str:
    made, buffer = checksums.new(kind), memoryview(bytearray(BLOCK_BYTES))
    for offset in range(0, size, BLOCK_BYTES):
        made.update(_read(file, buffer[: size - offset], offset))
        look()
    return made.hexdigest()


def same(one: int, other: int, size: int, kind: str, *, moved: Callable[[int], None]) -> str | None:
    """The common checksum if both hold the same `size` bytes, else None."""
    made = checksums.new(kind)
    buffers = memoryview(bytearray(BLOCK_BYTES)), memoryview(bytearray(BLOCK_BYTES))
    for offset in range(0, size, BLOCK_BYTES):
        block, twin = (
            _read(file, buffer[: size - offset], offset) for file, buffer in zip((one, other), buffers, strict=True)
        )
        if xxhash.xxh3_128_digest(block) != xxhash.xxh3_128_digest(twin):  # ten times as fast as `==`
            return None
        made.update(block)
        moved(len(block))
    return made.hexdigest()


def _read(file: int, buffer: memoryview, offset: int) -> memoryview:
    """Fill all of `buffer`."""
    length = 0
    while length < len(buffer):
        got = os.preadv(file, [buffer[length:]], offset + length)
        if not got:
            raise SourceEnded
        length += got
    return buffer


def _write(file: int, block: memoryview, offset: int) -> None:
    while block:
        length = os.pwrite(file, block[:WRITE_BYTES], offset)
        block, offset = block[length:], offset + length
