"""Pieces of files, and their checksums at both ends, each end asked beside the copying."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import LifoQueue

from orchestrator.transfer import checksums
from orchestrator.transfer.base import TransferError, TransferRefused
from orchestrator.transfer.ends import End

PIECE_BYTES = 64 << 20
PIECES = 32  # of one file, at most about: each costs a few words with the servers, over a long way perhaps
LAST_BYTES = 16 << 20  # the last piece of several is about so long
SMALL_BYTES = 16 << 20  # of files not larger a strong checksum costs little, and a weak one is at its weakest
LOOK_S = 0.2
CHEAP = "adler32"


@dataclass(frozen=True)
class Piece:
    name: str  # of the file, relative
    offset: int
    length: int
    size: int  # of the file

    @property
    def end(self) -> int:
        return self.offset + self.length


def cut(name: str, size: int) -> list[Piece]:
    """The same for the same size, whoever goes on with a copy. An empty file is one empty piece.

    Of several the last ones are ever shorter: what is done about the last one is not done beside the copying.
    """
    length = max(PIECE_BYTES, -(-size // PIECES))
    if size <= length:
        return [Piece(name, 0, size, size)]
    pieces, offset = [], 0
    while (left := size - offset) > 0:
        here = length if left > length else max(LAST_BYTES, left // 2)
        pieces.append(Piece(name, offset, min(here, left), size))
        offset = pieces[-1].end
    return pieces


class Sums:
    """Compares pieces. Those of the source are asked once for each copy, those of the destination each time.

    `wanted` is what the whole files are to be known by: the usual kind is made where the bytes pass through this host
    anyway, and no server knows it; another is asked of both ends, and compared, when all has arrived. `largest` of the
    files says by which kind their pieces are compared.
    """

    def __init__(self, origin: End, target: End, wanted: str, largest: int) -> None:
        here, there = origin.sums(), target.sums()
        common = [kind for kind in here if kind in there]
        if wanted != checksums.USUAL and wanted not in common:
            raise TransferRefused(f"The two ends have no checksum {wanted!r} in common.", "Ask for another, or none.")
        if not common:
            raise TransferRefused("The two ends have no kind of checksum in common.", "Ask for `checks: size`.")
        self._wanted = wanted
        strong = next((kind for kind in common if kind != CHEAP), CHEAP)
        self._kind = CHEAP if CHEAP in common and largest > SMALL_BYTES else strong
        self._origin, self._target = _Asked(origin), _Asked(target)
        self._knowing = [(asked, wanted in sums) for asked, sums in ((self._origin, here), (self._target, there))]
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
        if (digest := _waited(here, look)) and digest == _waited(there, look):
            self._known[piece] = digest
            return True
        del self._sources[piece]  # the source may have been read wrong
        return False

    def of_file(self, pieces: Sequence[Piece], source: str, target: str, look: Callable[[], None]) -> str:
        """`kind:digest` of a whole file whose pieces agree. A TransferError: by the wanted kind the ends differ."""
        size = pieces[0].size
        places = zip(self._knowing, (source, target), strict=True)
        able = [(asked, path) for (asked, knows), path in places if knows]
        if self._wanted != checksums.USUAL or len(able) == 1:
            found = {_waited(asked.pool.submit(asked.whole, path, self._wanted, size), look) for asked, path in able}
            if len(found) != 1:
                raise TransferError(f"The copy of '{source}' has another {self._wanted} than its source.")
            return f"{self._wanted}:{found.pop()}"
        kind = self._kind
        if len(pieces) == 1:
            return f"{kind}:{self._known[pieces[0]]}"
        if kind == CHEAP:
            return f"{kind}:{checksums.joined_adler32((self._known[piece], piece.length) for piece in pieces)}"
        asking = self._origin.pool.submit(self._origin.whole, source, kind, size)
        return f"{kind}:{_waited(asking, look)}"

    def close(self) -> None:
        self._origin.close()
        self._target.close()

    def _ask(self, asked: _Asked, piece: Piece, path: str) -> Future[str]:
        if not piece.length:  # servers take a length of 0 for the whole
            ready: Future[str] = Future()
            ready.set_result(checksums.new(self._kind).hexdigest())
            return ready
        return asked.pool.submit(asked.digest, path, self._kind, piece.offset, piece.length)


def _waited(asked: Future[str], look: Callable[[], None]) -> str:
    while not asked.done():
        wait([asked], timeout=LOOK_S)
        look()
    return asked.result()


class _Asked:
    """An end with as many connections as it is asked at once."""

    def __init__(self, end: End) -> None:
        self._ends = [end.again() for _ in range(end.at_once)]
        self._free: LifoQueue[End] = LifoQueue()  # the next one connects only while those before it are busy
        for each in self._ends:
            self._free.put(each)
        self.pool = ThreadPoolExecutor(len(self._ends), thread_name_prefix="sums")

    def digest(self, path: str, kind: str, offset: int, length: int) -> str:
        end = self._free.get()
        try:
            return end.digest(path, kind, offset, length)
        finally:
            self._free.put(end)

    def whole(self, path: str, kind: str, size: int) -> str:
        end = self._free.get()
        try:
            return end.whole(path, kind, size)
        finally:
            self._free.put(end)

    def close(self) -> None:
        for end in self._ends:
            end.close()
        self.pool.shutdown(wait=True, cancel_futures=True)
