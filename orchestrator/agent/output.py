"""The kept stdout and stderr of an attempt: where they lie, how they are capped, what is captured from them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

import regex

from orchestrator import codec
from orchestrator.model import Order, Outcome, split_token

SEARCH_S = 5.0  # one expression on one output; a catastrophic one is given up, not waited for
PROGRESS = re.compile(rb"^progress (\d(?:\.\d+)?) ?(.*)$", re.MULTILINE)  # the line of the kernel contract


class Paths:
    """The files of one attempt, in the run's log directory."""

    def __init__(self, order: Order) -> None:
        _, number, attempt = split_token(order.token)
        self.stem = stem = f"{order.log_dir}/{number}.{attempt}"
        self.stdout, self.stderr = f"{stem}.out", f"{stem}.err"
        self.cancelled = f"{stem}.cancelled"  # a mark: do not begin
        self.exit = f"{stem}.exit"  # written when the attempt has ended, so that a restarted agent knows how
        self.job = f"{stem}.job"  # what the script of its batch job says of its own end
        self.script = f"{stem}.sh"  # that script, for people
        self.order = f"{stem}.order"  # what the job or the ranks are to do
        self._claim = f"{os.path.dirname(os.path.dirname(order.log_dir))}/.claims/{order.token}"

    def claim(self, number: int) -> str:
        """See `claim`. Not among the logs: a call that says nothing leaves no directory behind."""
        return f"{self._claim}.{number}"

    def open(self) -> tuple[int, int]:
        """Descriptors of stdout and stderr, for appending."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            out = os.open(self.stdout, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.stdout), mode=0o700, exist_ok=True)
            out = os.open(self.stdout, flags, 0o600)
        try:
            return out, os.open(self.stderr, flags, 0o600)
        except OSError:
            os.close(out)
            raise


def known_end(paths: Paths) -> Outcome | None:
    """What whoever carried the attempt out wrote of its end; None when it has not."""
    try:
        return codec.loads(Path(paths.exit).read_text(), Outcome)
    except (OSError, ValueError):
        return None


def cut(path: str, cap_bytes: int) -> None:
    """Keep the first and the last half of `cap_bytes`, with a line between that says what was left out.

    Safe on a file that is being appended to, but for what is written during the cut.
    """
    try:
        size = os.stat(path).st_size
        if size <= cap_bytes:
            return
        half = cap_bytes // 2
        with open(path, "r+b") as file:
            file.seek(size - half)
            tail = file.read(half)
            file.truncate(half)
            file.seek(half)
            file.write(f"\n[… {size - 2 * half} bytes left out by the cap of {cap_bytes} bytes …]\n".encode())
            file.write(tail)
    except OSError:
        return  # the log is a courtesy; losing it fails nothing


def read(path: str) -> str:
    """The text of an output; bytes that are not UTF-8 survive as surrogates."""
    try:
        with open(path, "rb") as file:  # pathlib would intern the names, and Python 3.12 keeps such strings for ever
            return file.read().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def path_if_any(path: str) -> str:
    """The path, or an empty string when nothing was written to it."""
    try:
        return path if os.stat(path).st_size else ""
    except OSError:
        return ""


def mark(paths: Paths) -> None:
    """Say that this attempt is not to begin, and is to end where it has begun."""
    touch(paths.cancelled)


def touch(path: str) -> None:
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        Path(path).touch()


def tidy(paths: Paths, *, well: bool, begun: bool, adopted: bool) -> None:
    """Remove what an attempt needs no more once its outcome is stored.

    The mark of one that was not seen to begin stays: a worker may still come for it. So does the claim of one that was
    adopted: the agent that had it before may wake and be about to begin it.
    """
    for path in (paths.stdout, paths.stderr):
        if not path_if_any(path):
            with contextlib.suppress(OSError):
                os.unlink(path)
    spent = [paths.exit, f"{paths.job}.beat"]
    if begun:
        spent.append(paths.cancelled)
    if well:  # else they tell a person what was tried, and the claim keeps a second job of the token from beginning
        spent += [paths.job, paths.script, paths.order]
    if well and not adopted:
        spent.append(f"{paths.job}.claim/job")
    for path in spent:
        with contextlib.suppress(OSError):
            os.unlink(path)
    if not adopted:
        with contextlib.suppress(OSError):
            os.rmdir(f"{paths.job}.claim")


def captured(patterns: Iterable[str], text: str) -> tuple[dict[str, str], str]:
    """(named groups of the first match of each pattern, a sentence about a pattern that could not be searched)."""
    values: dict[str, str] = {}
    for pattern in patterns:
        try:
            match = regex.compile(pattern).search(text, timeout=SEARCH_S)
        except TimeoutError:
            return values, f"outputVariableRegexList: {pattern!r} took over {SEARCH_S:g} s on this output"
        except regex.error as error:
            return values, f"outputVariableRegexList: {pattern!r}: {error}"
        if match is not None:
            values.update({name: value for name, value in match.groupdict().items() if value is not None})
    return values, ""


def last_progress(path: str) -> tuple[float, str] | None:
    """The newest progress line of an output that is being written."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            found = PROGRESS.findall(file.read())
    except OSError:
        return None
    if not found:
        return None
    fraction, text = found[-1]
    return min(1.0, float(fraction)), text.decode("utf-8", "replace")[:200]


def last_line(path: str) -> str:
    """The last line with something on it, as far as a sentence can hold it."""
    lines = [line.strip() for line in read(path)[-4000:].splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
