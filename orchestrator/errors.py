"""The exception tree. Every error a user can meet is one of these.

    BeamwayError                 exit 70   retry later   something of ours is broken
    ├── UserError                exit 2    never         the request cannot be carried out as written
    │   ├── DefinitionError      exit 2                  a workflow definition is wrong (file, line, stage, key)
    │   ├── ArgumentError        exit 2                  an argument of a run is unknown, missing or unsafe
    │   ├── InputError           exit 66                 an input file is missing, empty or unreadable
    │   └── SettingsError        exit 78                 a setting or profile is wrong
    ├── NotFound                 exit 4    never         no such run, workflow, stage or site
    ├── Conflict                 exit 5    never         the thing is not in a state that allows this
    ├── Denied               exit 77   never         no token, or one that may not do this
    ├── RunFailed                exit 1    never         the run that was waited for did not end `done`
    └── Unavailable              exit 75   later         a service, agent or site does not answer
        └── Stale                exit 75   later         another has taken over what this one held

Each carries one sentence that is safe and useful for the user, what to do next, whether to try again, and the exit
code of the command line. The sentence never holds a secret and is always printable (see `printable`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum
from typing import ClassVar


class Retry(StrEnum):
    NOW = "now"
    LATER = "later"
    NEVER = "never"


def printable(text: object) -> str:
    """`text` with control characters and undecodable bytes escaped, so that a hostile file name stays on its line."""
    shown = str(text).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


class BeamwayError(Exception):
    exit_code: ClassVar[int] = 70
    retry: ClassVar[Retry] = Retry.LATER

    def __init__(self, sentence: str, /, hint: str = "") -> None:
        self.sentence = printable(sentence)
        self.hint = printable(hint)
        super().__init__(f"{self.sentence} {self.hint}".strip())


class UserError(BeamwayError):
    exit_code = 2
    retry = Retry.NEVER


class DefinitionError(UserError):
    """A workflow definition is wrong. `where` reads `file:line, stage 's', key 'k'`, as far as each is known."""

    def __init__(
        self,
        sentence: str,
        /,
        hint: str = "",
        *,
        file: str = "",
        line: int = 0,
        stage: str = "",
        key: str = "",
    ) -> None:
        self.file, self.line, self.stage, self.key = file, line, stage, key
        parts = [f"{file}:{line}" if file and line else file or (f"line {line}" if line else "")]
        parts += [f"stage {stage!r}" if stage else "", f"key {key!r}" if key else ""]
        self.where = ", ".join(p for p in parts if p)
        super().__init__(f"{self.where}: {sentence}" if self.where else sentence, hint)


class ArgumentError(UserError):
    pass


class InputError(UserError):
    exit_code = 66


class SettingsError(UserError):
    exit_code = 78


class NotFound(BeamwayError):
    exit_code = 4
    retry = Retry.NEVER


class Conflict(BeamwayError):
    exit_code = 5
    retry = Retry.NEVER


class Denied(BeamwayError):
    exit_code = 77
    retry = Retry.NEVER


class RunFailed(BeamwayError):
    exit_code = 1
    retry = Retry.NEVER


class Unavailable(BeamwayError):
    exit_code = 75


class Stale(Unavailable):
    """Who meets it must stop acting: asking again with the same lease cannot help."""


def of_exit_code(exit_code: int) -> type[BeamwayError]:
    """The class of an error that came from another process."""
    kinds = (UserError, InputError, SettingsError, NotFound, Conflict, Denied, Unavailable)
    return next((kind for kind in kinds if kind.exit_code == exit_code), BeamwayError)
