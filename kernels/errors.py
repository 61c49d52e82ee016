"""How a kernel fails: one error, one sentence, one exit code, one class word.

    code  class         meaning
    0                   done; every output passed its check and lies under its final name
    2     user error    the call is wrong: unknown kernel or argument, bad value
    3     bad output    an output failed its own check (not finite, wrong shape, error above the bar)
    65    bad input     an input is not what it should be (truncated, wrong data sets, no flats, no theta)
    66    bad input     an input is missing, empty or unreadable
    70    user error    a bug of the kernel; the traceback is on stderr
    73    user error    an output cannot be created
    74    transient     writing or reading failed (disk full, quota, I/O error)
    75    transient     something passes by itself (a lock, a stale handle, no memory left)
    130   user error    interrupted
    143   user error    ended by SIGTERM; nothing half is left behind

The codes from 64 on are those of `sysexits.h`. A caller in process sees `KernelError`; a caller of the program sees
the code and, on stderr, `error CLASS: SENTENCE`. Both carry the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    DONE = 0
    USAGE = 2
    BAD_OUTPUT = 3
    BAD_INPUT = 65
    NO_INPUT = 66
    BUG = 70
    CANNOT_CREATE = 73
    IO = 74
    TRANSIENT = 75
    INTERRUPTED = 130
    TERMINATED = 143


_CLASS = {
    Exit.BAD_OUTPUT: "bad output",
    Exit.BAD_INPUT: "bad input",
    Exit.NO_INPUT: "bad input",
    Exit.IO: "transient",
    Exit.TRANSIENT: "transient",
}


def printable(text: object) -> str:
    """`text` with control characters and undecodable bytes escaped, so that a hostile file name stays on its line."""
    shown = str(text).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    import difflib  # 4 ms that only a failure pays

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {printable(close[0])!r}?" if close else ""


class KernelError(Exception):
    """A failure that the user can understand. `metrics` holds what had been measured by then."""

    def __init__(self, sentence: str, exit_code: int = Exit.USAGE) -> None:
        self.sentence = printable(sentence)
        self.exit_code = int(exit_code)
        self.metrics: dict[str, float | int | str] = {}
        super().__init__(self.sentence)

    @property
    def failure(self) -> str:
        """The class word: "user error", "bad input", "bad output" or "transient"."""
        return _CLASS.get(Exit(self.exit_code), "user error")

    def with_hint(self, hint: str) -> KernelError:
        """The same failure, with what to do about it after the sentence."""
        self.sentence = printable(f"{self.sentence}{hint}")
        return self

    def __str__(self) -> str:
        return self.sentence


class UnknownKernel(KernelError, KeyError):
    """No kernel has this name."""


class PeerFailed(KernelError):
    """This rank has stopped because another failed, whose own error says more."""


class Terminated(BaseException):
    """SIGTERM arrived. Not an `Exception`, so that no handler of a kernel swallows it."""
