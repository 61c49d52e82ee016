"""What one check has found, and how checks say it: return what was seen, or raise Wrong or NotDone."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct

from orchestrator.errors import BeamwayError


class Result(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"  # could not be or need not be looked at; `seen` says why


class Check(Struct, frozen=True):
    name: str
    result: Result
    seconds: float = 0.0
    seen: str = ""  # what was seen, or why nothing was
    remedy: str = ""  # which key of the profile to change, or whom to call; also a note to something that passed


class Wrong(Exception):
    """The site is not as the profile says."""

    def __init__(self, seen: str, remedy: str) -> None:
        super().__init__(seen)
        self.seen, self.remedy = seen, remedy


class NotDone(Exception):
    """The check was not made."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class Noted(str):
    """What was seen, fine, with something to be said about it."""

    __slots__ = ("note",)

    def __new__(cls, seen: str, note: str = "") -> Noted:
        made = super().__new__(cls, seen)
        made.note = note
        return made

    note: str


def made(name: str, look: Callable[[], str], remedy: str = "") -> Check:
    """The check `name`, made now. `remedy` is for errors that bring none of their own."""
    begun = time.monotonic()
    result, seen, advice = Result.PASSED, "", ""
    try:
        seen = look()
        advice = seen.note if isinstance(seen, Noted) else ""
    except Wrong as wrong:
        result, seen, advice = Result.FAILED, wrong.seen, wrong.remedy
    except NotDone as not_done:
        result, seen, advice = Result.SKIPPED, not_done.reason, not_done.remedy
    except BeamwayError as error:
        result, seen, advice = Result.FAILED, error.sentence, error.hint or remedy
    except OSError as error:
        result, seen, advice = Result.FAILED, error.strerror or str(error) or type(error).__name__, remedy
    return Check(name, result, round(time.monotonic() - begun, 4), str(seen), advice)


def skipped(names: list[str], reason: str) -> list[Check]:
    return [Check(name, Result.SKIPPED, seen=reason) for name in names]
