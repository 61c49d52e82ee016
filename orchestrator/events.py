"""What can happen to a run, and what follows from it: the words of `states.advance`.

Events are what the engine learns, each with the time `at` which it happened (epoch seconds, UTC). Commands are what it
then does.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from orchestrator.model import Expectation, Outcome, RunStatus

# -------------------------------------------------------------------------------------------------------- events


class Begun(Struct, frozen=True):
    """The run is accepted and on disk."""

    at: float


class StageOpened(Struct, frozen=True):
    """An answer to `OpenStage`: runIf holds and these tasks are to be done."""

    at: float
    stage: str
    repetition: int
    drafts: tuple[TaskDraft, ...]


class StagePlaced(Struct, frozen=True):
    """An answer to `Place`: its tasks go to `site`, and `sentence` says why."""

    at: float
    stage: str
    site: str
    sentence: str = ""
    queue: str = ""
    reservation: str = ""


class StageSkipped(Struct, frozen=True):
    """An answer to `OpenStage`: runIf is false."""

    at: float
    stage: str
    reason: str


class StageRefused(Struct, frozen=True):
    """An answer to `OpenStage` or `DecideRepeat`: it cannot be carried out, and `reason` says why."""

    at: float
    stage: str
    reason: str


class RepeatDecided(Struct, frozen=True):
    """An answer to `DecideRepeat`."""

    at: float
    stage: str
    satisfied: bool


class TaskStarted(Struct, frozen=True):
    at: float
    number: int
    attempt: int


class TaskEnded(Struct, frozen=True):
    at: float
    number: int
    attempt: int
    outcome: Outcome


class TaskDue(Struct, frozen=True):
    """The time a `Wake` asked for has come."""

    at: float
    number: int


class CancelAsked(Struct, frozen=True):
    at: float
    reason: str = "cancelled by the user"


class RetryAsked(Struct, frozen=True):
    """Run again what did not pass; with `stage`, that stage and everything after it."""

    at: float
    stage: str = ""


class ResumeAsked(Struct, frozen=True):
    """Try what is on hold at once; with `sites`, only what is on hold there."""

    at: float
    sites: tuple[str, ...] = ()


class Recovered(Struct, frozen=True):
    """The engine was restarted and loaded this run: say again what is outstanding."""

    at: float


class TaskDraft(Struct, frozen=True):
    """A task as the stage's opening works it out: every `$name` bound."""

    item: str | None = None
    command: str = ""
    call: str = ""
    arguments: dict[str, Any] = {}
    working_dir: str = "."
    expect: tuple[Expectation, ...] = ()


Event: TypeAlias = (
    Begun
    | StageOpened
    | StagePlaced
    | StageSkipped
    | StageRefused
    | RepeatDecided
    | TaskStarted
    | TaskEnded
    | TaskDue
    | CancelAsked
    | RetryAsked
    | ResumeAsked
    | Recovered
)

# ------------------------------------------------------------------------------------------------------ commands


class OpenStage(Struct, frozen=True):
    stage: str
    repetition: int


class Place(Struct, frozen=True):
    """Choose a site for this stage, other than those that have just failed it."""

    stage: str
    but: tuple[str, ...] = ()


class DecideRepeat(Struct, frozen=True):
    stage: str


class Launch(Struct, frozen=True):
    """Hand this attempt to its agent. Idempotent by token; `adopt` when it may have been handed over before."""

    number: int
    adopt: bool = False


class Kill(Struct, frozen=True):
    number: int
    attempt: int


class Wake(Struct, frozen=True):
    number: int
    at: float


class Finished(Struct, frozen=True):
    status: RunStatus


Command: TypeAlias = OpenStage | Place | DecideRepeat | Launch | Kill | Wake | Finished
