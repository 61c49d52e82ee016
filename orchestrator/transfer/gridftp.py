"""Copies from, to and between GridFTP servers, by `globus-url-copy` in pieces; see `carrying`.

No server can be asked to bring a file to its disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import BeamwayError, nearest
from orchestrator.transfer import checksums, local, pieces, url_copy
from orchestrator.transfer.base import TransferRefused, TransferReport
from orchestrator.transfer.carrying import Move, carried, longest_s
from orchestrator.transfer.ends import End, LocalEnd, local_end
from orchestrator.transfer.gridftp_server import ServerEnd, address, is_address
from orchestrator.transfer.pieces import Piece

OPTIONS = {"streams": 4, "concurrency": 4, "silence_s": 120, "timeout_s": 0, "retries": 5}

RESERVED_BYTES = 1 << 20  # of larger files the room is asked for before the first byte
FAR_S = 0.003  # a server whose words take longer is in another house


def copy(
    source: str,
    destination: str,
    *,
    token: str,
    checks: Sequence[str] | str = ("checksum",),
    options: Mapping[str, Any] | None = None,
    progress: local.Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> TransferReport:
    """Copy a file or a tree; at least one of the two is an address (`ftp://`, `gsiftp://`).

    A file goes *into* a destination that is a folder or ends in `/`. Called again with the same token it goes on where
    it was. `InputError`: the source is at fault; `TransferError`: the rest, with its failure class.
    """
    verify = "checksum" in local.checked(checks)
    kind, chosen = _chosen(options or {})
    origin, from_path = _end(source, chosen["silence_s"], kind)
    target, to_path = _end(destination, chosen["silence_s"], kind)
    return carried(
        origin,
        target,
        (from_path, to_path),
        UrlCopy(origin, target, chosen),
        token=token,
        kind=kind if verify else "",
        progress=progress,
        cancelled=cancelled,
    )


def _chosen(options: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The kind of checksum, and the numbers."""
    for name, value in options.items():
        if name == "checksum":
            continue
        if name not in OPTIONS:
            raise TransferRefused(f"GridFTP has no option {name!r}.{nearest(name, OPTIONS)}")
        if not isinstance(value, int | float) or value < (name in ("streams", "concurrency", "silence_s")):
            raise TransferRefused(f"The option {name!r} of GridFTP is a number, and not {value!r}.")
    return checksums.chosen(options), {**OPTIONS, **{n: v for n, v in options.items() if n != "checksum"}}


def _end(place: str, silence_s: float, kind: str) -> tuple[End, str]:
    if is_address(place):
        found = address(place)
        return ServerEnd(found, silence_s), found.path
    return local_end(place, kind)


@dataclass(frozen=True)
class UrlCopy:
    """Implements `carrying.Mover`."""

    origin: End
    target: End
    options: dict[str, float]
    aside = False

    @property
    def retries(self) -> float:
        return self.options["retries"]

    def cut(self, name: str, size: int) -> list[Piece]:
        return pieces.cut(name, size)

    def move(
        self,
        moves: Sequence[Move],
        *,
        arrived: Callable[[int], None],
        moved: Callable[[int], None],
        cancelled: Callable[[], bool],
    ) -> BeamwayError | None:
        self._reserve(moves)
        side_by_side = self._side_by_side(moves)
        size = sum(move.piece.length for move in moves)
        pace = url_copy.Pace(
            streams=int(self.options["streams"]),
            side_by_side=side_by_side,
            silence_s=self.options["silence_s"],
            deadline=time.monotonic() + longest_s(self.options["timeout_s"], size),
        )
        return url_copy.run(
            [self._told(move) for move in moves],
            pace,
            begun=lambda number: arrived(number - side_by_side + 1),
            moved=moved,
            cancelled=cancelled,
        )

    def _reserve(self, moves: Sequence[Move]) -> None:
        """On this host; a server could be asked only by the program itself."""
        if isinstance(self.target, LocalEnd):
            for staged, size in {move.staged: move.piece.size for move in moves}.items():
                if size > RESERVED_BYTES:
                    self.target.reserve(staged, size)

    def _side_by_side(self, moves: Sequence[Move]) -> int:
        """Near by, pieces of one file go in order, which costs least. Between two pieces the program waits for some two
        words to come back; over a long way another piece moves meanwhile, and has send buffers of its own."""
        answers = [end.answer_s for end in (self.origin, self.target) if isinstance(end, ServerEnd)]
        best = len(moves) if max(answers) > FAR_S else len({move.source for move in moves}) // 2
        return int(max(1, min(self.options["concurrency"], best)))

    def _told(self, move: Move) -> url_copy.Move:
        piece = move.piece
        length = -1 if piece.length == piece.size else piece.length
        return url_copy.Move(self.origin.url(move.source), self.target.url(move.staged), piece.offset, length)
