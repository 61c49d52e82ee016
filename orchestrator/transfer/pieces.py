"""Pieces of files, and their checksums at both ends, each end asked beside the copying."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import SimpleQueue

from orchestrator.transfer.base import TransferRefused
from orchestrator.transfer.ends import End

PIECE_BYTES = 64 << 20
PIECES = 100  # of one file, at most about: each costs a few words with the servers
LOOK_S = 0.2
AT_ONCE = 2  # checksums at each end: one core makes 2 GB/s, less than a fast network


@dataclass(frozen=True)
class Piece:
    name: str  # of the file, relative
    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def cut(name: str, size: int) -> list[Piece]:
    """The same for the same size, whoever goes on with a copy. An empty file is one empty piece."""
    length = max(PIECE_BYTES, -(-size // PIECES))
    return [Piece(name, offset, min(length, size - offset)) for offset in range(0, max(size, 1), length)]


class Sums:
    """Compares pieces. Those of the source are asked once for each copy, those of the destination each time."""

    def __init__(self, origin: End, target: End) -> None:
        common = [kind for kind in origin.sums() if kind in target.sums()]
        if not common:
            raise TransferRefused("The two ends have no kind of checksum in common.", "Ask for `checks: size`.")
        self.kind = common[0]
        self._origin, self._target = _Asked(origin), _Asked(target)
        self._sources: dict[Piece, Future[str]] = {}
        self._targets: dict[tuple[Piece, str], Future[str]] = {}
        self._known: dict[Piece, str] = {}

    def ask_source(self, piece: Piece, path: str) -> Future[str]:
        known = self._sources.get(piece)
        if known is None or (known.done() and known.exception() is not None):
            known = self._sources[piece] = self._ask(self._origin, piece, path)
        return known

    def ask(self, piece: Piece, source: str, target: str) -> None:
        """Begin to compare; `agree` takes the answer."""
        self.ask_source(piece, source)
        self._targets[piece, target] = self._ask(self._target, piece, target)

    def forget(self) -> None:
        """What was begun and not taken: the destination may have changed since."""
        self._targets.clear()

    def agree(self, piece: Piece, source: str, target: str, look: Callable[[], None]) -> bool:
        """Wait for both; `look` may end the waiting by an exception."""
        if (piece, target) not in self._targets:
            self.ask(piece, source, target)
        there, here = self._targets.pop((piece, target)), self.ask_source(piece, source)
        waiting = {there, here}
        while waiting:
            _, waiting = wait(waiting, timeout=LOOK_S)
            look()
        if (digest := here.result()) and digest == there.result():
            self._known[piece] = digest
            return True
        del self._sources[piece]  # the source may have been read wrong
        return False

    def of_file(self, pieces: Sequence[Piece]) -> str:
        """The checksum of a file of one piece; of several, the checksum of theirs, one a line."""
        if len(pieces) == 1:
            return self._known[pieces[0]]
        lines = "".join(f"{self._known[piece]}\n" for piece in pieces)
        return hashlib.new(self.kind.lower(), lines.encode(), usedforsecurity=False).hexdigest()

    def close(self) -> None:
        self._origin.close()
        self._target.close()

    def _ask(self, asked: _Asked, piece: Piece, path: str) -> Future[str]:
        if not piece.length:  # servers take a length of 0 for the whole
            ready: Future[str] = Future()
            ready.set_result(hashlib.new(self.kind.lower(), usedforsecurity=False).hexdigest())
            return ready
        return asked.pool.submit(asked.digest, path, self.kind, piece.offset, piece.length)


class _Asked:
    """An end with as many connections as it is asked at once."""

    def __init__(self, end: End) -> None:
        self._ends = [end.again() for _ in range(AT_ONCE)]
        self._free: SimpleQueue[End] = SimpleQueue()
        for each in self._ends:
            self._free.put(each)
        self.pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="sums")

    def digest(self, path: str, kind: str, offset: int, length: int) -> str:
        end = self._free.get()
        try:
            return end.digest(path, kind, offset, length)
        finally:
            self._free.put(end)

    def close(self) -> None:
        for end in self._ends:
            end.close()
        self.pool.shutdown(wait=True, cancel_futures=True)
