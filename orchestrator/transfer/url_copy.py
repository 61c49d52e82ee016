"""The program `globus-url-copy` for one list of pieces: started, listened to, ended.

It dies with us. Whether a piece has arrived is never taken from what it prints, only that it may be worth a look.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

from orchestrator.errors import BeamwayError
from orchestrator.outside import effect
from orchestrator.transfer.base import TransferCancelled, TransferDown, TransferRefused
from orchestrator.transfer.gridftp_errors import explained

PROGRAM = "globus-url-copy"
LOOK_S = 0.1
_BYTES = re.compile(rb"(\d+) bytes +[\d.]+ MB/sec")
_BEGINS = b"Source:"


@dataclass(frozen=True)
class Move:
    """One range of a file; both addresses are escaped."""

    source: str
    destination: str
    offset: int
    length: int


@dataclass(frozen=True)
class Pace:
    streams: int = 4  # data connections side by side for one file
    side_by_side: int = 1  # files at once
    restarts: int = 2  # of a broken piece, where it was, before the program gives up
    silence_s: float = 120.0
    deadline: float = float("inf")  # of time.monotonic


def run(
    moves: Sequence[Move],
    pace: Pace,
    *,
    begun: Callable[[int], None],
    moved: Callable[[int], None],
    cancelled: Callable[[], bool],
) -> BeamwayError | None:
    """Copy them all. None: the program ended with 0; else why it did not.

    `begun(n)`: it has come to the n-th move (from 0; with one file at a time the earlier ones are over); `moved(bytes)`
    of that one.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise TransferRefused(
            f"The program {PROGRAM} is not on this host.", "Debian: apt install globus-gass-copy-progs."
        )
    # Files without names: nothing stays of them if we are killed.
    with tempfile.TemporaryFile() as listed, tempfile.TemporaryFile() as errors:
        listed.write("".join(f'"{m.source}" "{m.destination}" {m.offset},{m.length}\n' for m in moves).encode())
        listed.seek(0)
        argv = [*dying_with_us(), program, "-vb", "-fast", "-p", str(pace.streams), "-cc", str(pace.side_by_side)]
        argv += ["-rst", "-rst-retries", str(pace.restarts), "-rst-interval", "1", "-f", "/dev/stdin"]
        heard, terminal = os.openpty()  # into a pipe it would speak only now and then
        try:
            with effect("transfer.run"):
                process = subprocess.Popen(argv, stdin=listed, stdout=terminal, stderr=errors, start_new_session=True)
        except BaseException:
            os.close(heard)
            raise
        finally:
            os.close(terminal)
        try:
            trouble = _listen(heard, pace, moves, begun, moved, cancelled)
            if trouble is None:
                process.wait(pace.silence_s)
        except subprocess.TimeoutExpired:
            trouble = TransferDown(f"The copy to '{moves[0].destination}' came to no end.")
        finally:
            process.kill()
            process.wait()
            os.close(heard)
        if trouble is not None or process.returncode == 0:
            return trouble
        errors.seek(0)
        return _why(errors.read().decode(errors="backslashreplace"), moves)


def dying_with_us() -> list[str]:
    """Where the system has it: the kernel ends the program when we are killed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _listen(
    out: int,
    pace: Pace,
    moves: Sequence[Move],
    begun: Callable[[int], None],
    moved: Callable[[int], None],
    cancelled: Callable[[], bool],
) -> BeamwayError | None:
    place = moves[0].destination
    heard_at, number, rest = time.monotonic(), -1, b""
    while True:
        ready, _, _ = select.select([out], [], [], LOOK_S)
        now = time.monotonic()
        if cancelled():
            return TransferCancelled(f"The copy to '{place}' was cancelled.")
        if ready:
            try:
                block = os.read(out, 65536)
            except OSError:  # nobody has the other side any more: it has ended
                return None
            heard_at = now
            *lines, rest = re.split(rb"(?<=[\r\n])", rest + block)
            for line in lines:
                if line.startswith(_BEGINS):
                    number += 1
                    begun(number)
                elif found := _BYTES.search(line):
                    moved(int(found[1]))
        elif now - heard_at > pace.silence_s:
            return TransferDown(f"Nothing was heard of the copy to '{place}' for {pace.silence_s:g} s.")
        if now > pace.deadline:
            return TransferDown(f"The copy to '{place}' took longer than its size allows.")


def _why(text: str, moves: Sequence[Move]) -> BeamwayError:
    """What it said before it gave up, about the piece whose path it names."""
    for move in moves:
        for url, source in ((move.destination, False), (move.source, True)):
            if _path(url) in text:
                return explained(text, url, source=source)
    return explained(text, moves[0].destination)


def _path(url: str) -> str:
    return os.fsdecode(unquote_to_bytes(urlsplit(url).path))
