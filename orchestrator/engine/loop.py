"""The engine: events in, saved states and effects out.

`turn` takes every waiting event through `states.advance`, writes all that changed in one transaction, and only then
hands out the effects. So whatever an agent or a client hears of is on the disk, and one write serves many transitions.
"""

from __future__ import annotations

import heapq
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path

import structlog
from immutables import Map
from msgspec import Struct
from msgspec.structs import replace

from orchestrator import events, records, states
from orchestrator.engine import accounts, opening, orders
from orchestrator.engine.tally import Tally
from orchestrator.errors import BeamwayError, Conflict
from orchestrator.model import (
    RUN_ENDED,
    FailureClass,
    Order,
    Outcome,
    Plan,
    Run,
    RunStatus,
    StageKind,
    Task,
    TaskStatus,
    split_token,
    token,
)
from orchestrator.outside import effect
from orchestrator.store import letters, lineage, search
from orchestrator.store import runs as store
from orchestrator.store.database import Database
from orchestrator.store.leases import Lease
from orchestrator.transfer.places import Profiles
from sites import loader

log = structlog.get_logger()

CHILDREN = uuid.UUID("6f4a4d0e-6c0b-4f6a-9d52-0d6f2f1c7a10")  # namespace of the ids of child runs


class Effects(Struct):
    """What a turn has caused, to be carried out now that it is on the disk."""

    launches: list[tuple[str, Order]]  # site, order
    kills: list[tuple[str, str]]  # site, token
    places: list[tuple[str, events.Place]]  # run, the stage that wants a site
    finished: list[Run]
    files: bool = False  # one of the finished runs has to do with files: the catalog has work


class Engine:
    """Holds every run that is not over. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        database: Database,
        runs: Path,
        *,
        clock: Callable[[], float],
        shell_text: Callable[[str], bool] = lambda site: False,
        profiles: Profiles = loader.load,
        default_site: str = "local",
        fence: Lease | None = None,
    ) -> None:
        """With `fence` it writes only as long as that lease stands, and raises Stale afterwards."""
        self._database = database
        self._writer = store.Writer(database)
        self._directory = runs
        self._clock = clock
        self._shell_text = shell_text
        self._profiles = profiles
        self._default_site = default_site
        self._fence = fence
        self._queue: deque[tuple[str, events.Event]] = deque()
        self._timers: list[tuple[float, str, int]] = []
        self._stored: dict[str, Run] = {}  # as the store has them; the diff to `runs` is what a turn writes
        self._touched: dict[str, set[int]] = {}
        self._log: list[store.EventRow] = []
        self._submitted: dict[str, Run] = {}  # not yet compared with the store
        self._dropped: set[str] = set()  # whose first save failed: it may have been made all the same
        self._outward: list[tuple[str, events.Launch | events.Kill]] = []
        self._places: list[tuple[str, events.Place]] = []
        self._finished: list[Run] = []
        self._files = False
        self.runs: dict[str, Run] = {}
        self.tally = Tally()

    # ---- in

    def recover(self) -> int:
        """Take up every unfinished run of the store; the number of them."""
        for run in store.load_unfinished(self._database):
            self._take_up(run)
        return len(self.runs)

    def submit(self, run: Run) -> None:
        """Begin a run; a run of the same id that exists already is left alone."""
        if run.id not in self.runs and run.id not in self._submitted:
            self._submitted[run.id] = run

    def feed(self, run_id: str, event: events.Event) -> None:
        if run_id in self.runs:
            self._queue.append((run_id, event))

    def forget_unsaved(self) -> None:
        """Drop the runs that never reached the store: whoever asked for them is told so. Child runs stay: we asked."""
        self._submitted = {i: r for i, r in self._submitted.items() if r.parent}
        for run_id in [i for i, r in self.runs.items() if i not in self._stored and not r.parent]:
            del self.runs[run_id]
            self._dropped.add(run_id)
            self._touched.pop(run_id, None)
            self._outward = [(r, c) for r, c in self._outward if r != run_id]
            self._places = [(r, c) for r, c in self._places if r != run_id]
            self._finished = [r for r in self._finished if r.id != run_id]
            self._log = [e for e in self._log if e.run_id != run_id]

    def retry(self, run_id: str, stage: str) -> None:
        """Run again what did not pass, or `stage` and all after it. Raises NotFound, Conflict."""
        run = self.runs.get(run_id) or store.load(self._database, run_id)
        if run.status not in RUN_ENDED:
            more = f"`beamway resume {run_id}` tries at once." if run.status is RunStatus.HELD else ""
            raise Conflict(
                f"Run {run_id} is {run.status.value}.", more or "Only a run that is over can be tried again."
            )
        if stage and stage not in run.stages:
            raise Conflict(f"Run {run_id} has no stage {stage!r}; it has {', '.join(run.stages)}.")
        if run.status is RunStatus.DONE and not stage:
            raise Conflict(f"Run {run_id} is done.", "Name a stage with --from to run it and all after it again.")
        self.runs[run_id] = self._stored[run_id] = run
        self._queue.append((run_id, events.RetryAsked(self._clock(), stage)))

    def resume(self, run_id: str) -> None:
        """Try at once what of this run is on hold. Raises Conflict."""
        run = self.runs.get(run_id)
        if run is None or not any(s.on_hold for s in run.stages.values()):
            raise Conflict(f"Nothing of run {run_id} is on hold.", f"`beamway why {run_id}` says where it is.")
        self._queue.append((run_id, events.ResumeAsked(self._clock())))

    def resume_site(self, site: str) -> list[str]:
        """Try at once what is on hold at this site; the runs of which something is."""
        names = (site, "") if site == self._default_site else (site,)
        found = [run.id for run in self.runs.values() if _holds(run, names)]
        self._queue.extend((run_id, events.ResumeAsked(self._clock(), names)) for run_id in found)
        return found

    def active(self, run_id: str) -> bool:
        """Is this a run that is not over?"""
        return run_id in self.runs or run_id in self._submitted

    def due(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, run_id, number = heapq.heappop(self._timers)
            self.feed(run_id, events.TaskDue(now, number))

    @property
    def next_due(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    # ---- through

    def turn(self) -> Effects:
        """Advance every waiting event, save, and return what to do.

        Raises Unavailable when the store cannot be written; nothing is lost then, and the next turn tries again.
        """
        began, busy = time.perf_counter(), bool(self._submitted or self._queue)
        while self._submitted or self._queue or self._dropped:
            self._admit()
            if not self._queue:
                break
            run_id, event = self._queue.popleft()
            run = self.runs.get(run_id)
            if run is None:
                continue
            before = run
            try:
                run, commands, touched = states.advance(run, event)
            except Exception:  # one run's trouble must not stop the others, nor the service at each start
                log.exception("engine.event_failed", run=run_id, event_kind=type(event).__name__)
                continue
            self.runs[run_id] = run
            self._touched.setdefault(run_id, set()).update(touched)
            self._note(run, event)
            if isinstance(event, events.TaskEnded) and run is not before:
                self._count(before.tasks[event.number], run)
            for command in commands:
                match command:
                    case events.OpenStage() | events.DecideRepeat():
                        self._queue.append((run_id, self._answer(run_id, command)))
                    case events.Place():
                        self._places.append((run_id, command))
                    case events.Launch():
                        self._launch(run, command)
                    case events.Kill():
                        self._kill(run, command)
                    case events.Wake():
                        heapq.heappush(self._timers, (command.at, run_id, command.number))
                    case events.Finished():
                        self._finished.append(run)
                        self._note_files(run)
                        self._tell_parent(run)
        self._save()
        effects = Effects([], [], self._places, self._finished, self._files)
        for run_id, outward in self._outward:
            self._effect(run_id, outward, effects)
        self._outward, self._places, self._finished, self._files = [], [], [], False
        for run in effects.finished:
            self.tally.run(run.status.value)
            current = self.runs.get(run.id)
            if current is not None and current.status in RUN_ENDED:
                del self.runs[run.id]
                self._stored.pop(run.id, None)
        if busy:
            self.tally.turns.add(time.perf_counter() - began)
        return effects

    def _admit(self) -> None:
        """Begin the submitted runs that the store does not know; one look serves them all."""
        if self._submitted or self._dropped:
            known = search.known(self._database, [*self._submitted, *self._dropped])
            for run_id in known - self.runs.keys():  # its commit was made, and nobody heard of it
                self._take_up(store.load(self._database, run_id))
            for run_id, run in self._submitted.items():
                if run_id not in known:
                    self.runs[run_id] = run
                    self._queue.append((run_id, events.Begun(self._clock())))
            self._submitted, self._dropped = {}, set()

    def _take_up(self, run: Run) -> None:
        if run.status not in RUN_ENDED:
            self.runs[run.id] = self._stored[run.id] = run
            self._queue.append((run.id, events.Recovered(self._clock())))

    def _answer(self, run_id: str, command: events.OpenStage | events.DecideRepeat) -> events.Event:
        run = self.runs[run_id]
        at = self._clock()
        try:
            site = self._site(run.stages[command.stage].site)
            return opening.answer(run, command, at, opening.At(site, self._shell_text(site), self._profiles))
        except Exception as error:
            log.exception("engine.opening_failed", run=run_id, stage=command.stage)
            return events.StageRefused(at, command.stage, f"internal error: {type(error).__name__}: {error}")

    def _site(self, site: str) -> str:
        return self._default_site if site in ("", states.AUTO) else site

    def _save(self) -> None:
        changes = []
        for run_id, touched in self._touched.items():
            run, before = self.runs[run_id], self._stored.get(run_id)
            if run is before:
                continue
            stages = [name for name, s in run.stages.items() if before is None or before.stages.get(name) is not s]
            letter = letters.of(run, self._default_site)
            dealt_with = [run.instead_of] if before is None and run.instead_of else []
            if letter is None and before is not None and before.status is RunStatus.FAILED:
                dealt_with.append(run.id)
            changes.append(
                store.Changed(run, before is None, tuple(stages), tuple(sorted(touched)), letter, tuple(dealt_with))
            )
        if changes or self._log:
            began = time.perf_counter()
            with effect("store.commit"):
                self._writer.save(changes, self._log, fence=self._fence)
            self.tally.writes.add(time.perf_counter() - began)
        for change in changes:
            self._stored[change.run.id] = change.run
        self._touched.clear()
        self._log.clear()

    # ---- out

    def _effect(self, run_id: str, command: events.Launch | events.Kill, effects: Effects) -> None:
        run = self.runs[run_id]
        task = run.tasks[command.number]
        plan = states.stage_plan(run, task.stage)
        site = self._site(task.site)
        if isinstance(command, events.Kill):
            effects.kills.append((site, token(run_id, command.number, command.attempt)))
            return
        effects.launches.append((site, orders.order(run, task, plan, self._directory, adopt=command.adopt)))

    def _launch(self, run: Run, command: events.Launch) -> None:
        task = run.tasks[command.number]
        if states.stage_plan(run, task.stage).kind is StageKind.WORKFLOW:
            self._launch_child(run, task)
        else:
            self._outward.append((run.id, command))

    def _kill(self, run: Run, command: events.Kill) -> None:
        task = run.tasks[command.number]
        if states.stage_plan(run, task.stage).kind is not StageKind.WORKFLOW:
            self._outward.append((run.id, command))
            return
        child_id = _child_id(run, task)
        if child_id in self.runs:
            self.cancel(child_id, f"its parent run {run.id} was cancelled")
        else:
            outcome = Outcome(FailureClass.CANCELLED, "cancelled before the child run began")
            self.feed(run.id, events.TaskEnded(self._clock(), task.number, task.attempt, outcome))

    # ---- child runs

    def _launch_child(self, run: Run, task: Task) -> None:
        mine = token(run.id, task.number, task.attempt)
        child_id = _child_id(run, task)
        if child_id in self.runs:
            return
        if search.known(self._database, [child_id]):
            self._tell_parent(store.load(self._database, child_id))
            return
        at = self._clock()
        try:
            plan = opening.child_plan(run, task, shell_text=lambda site: self._shell_text(self._site(site)))
            files = opening.files_at_submission(plan)
        except BeamwayError as error:
            outcome = Outcome(FailureClass.USER, f"child workflow {task.call!r}: {error}")
            self._queue.append((run.id, events.TaskEnded(at, task.number, task.attempt, outcome)))
            return
        self._queue.append((run.id, events.TaskStarted(at, task.number, task.attempt)))
        self.submit(new_run(child_id, plan, at, files=files, username=run.username, host=run.host, parent=mine))

    def _tell_parent(self, run: Run) -> None:
        if not run.parent:
            return
        run_id, number, attempt = split_token(run.parent)
        failure = None if run.status is RunStatus.DONE else FailureClass.USER
        if run.status is RunStatus.ABORTED:
            failure = FailureClass.CANCELLED
        outcome = Outcome(
            failure,
            "" if failure is None else f"child run {run.id} {run.status.value}: {run.error}",
            started_at=run.started_at,
            ended_at=run.ended_at,
        )
        self.feed(run_id, events.TaskEnded(self._clock(), number, attempt, outcome))

    def cancel(self, run_id: str, reason: str) -> None:
        self.feed(run_id, events.CancelAsked(self._clock(), reason))

    # ---- small things

    def _note(self, run: Run, event: events.Event) -> None:
        row = _event_row(run, event)
        if row is not None:
            self._log.append(row)

    def _note_files(self, run: Run) -> None:
        """For whoever writes down what came from what: see `store.lineage`."""
        if text := accounts.summary(run):
            self._log.append(store.EventRow(run.id, run.ended_at, lineage.FILES, text=text))
            self._files = True

    def _count(self, task: Task, run: Run) -> None:
        """Into the tally. `task`: as it was before this attempt of it ended; `run`: as it is now."""
        now = run.tasks[task.number]
        outcome = now.outcome or Outcome()
        failure = "" if outcome.failure is None else outcome.failure.value
        self.tally.attempt(failure, again=now.status is TaskStatus.BACKOFF, held=now.status is TaskStatus.ON_HOLD)
        plan = states.stage_plan(run, task.stage)
        if plan.kind is not StageKind.WORKFLOW and (outcome.started_at or task.started_at):
            self.tally.took(self._site(task.site), records.costs(plan, [replace(task, outcome=outcome)]))


def _holds(run: Run, sites: tuple[str, ...]) -> bool:
    return any(s.on_hold for s in run.stages.values()) and any(
        t.status is TaskStatus.ON_HOLD and t.site in sites for t in run.tasks.values()
    )


def _child_id(run: Run, task: Task) -> str:
    """The same for the same attempt, so that a restarted engine finds the child it began."""
    return str(uuid.uuid5(CHILDREN, token(run.id, task.number, task.attempt)))


def new_run(
    run_id: str,
    plan: Plan,
    at: float,
    *,
    files: tuple[str, ...] = (),
    username: str = "",
    host: str = "",
    parent: str = "",
    instead_of: str = "",
) -> Run:
    return Run(
        run_id,
        plan,
        at,
        variables=Map(plan.variables),
        files=files,
        parent=parent,
        instead_of=instead_of,
        username=username,
        host=host,
    )


def _event_row(run: Run, event: events.Event) -> store.EventRow | None:
    """The line of the run's history that this event makes; None for those that tell a reader nothing."""
    match event:
        case events.TaskStarted():
            task = run.tasks.get(event.number)
            stage = task.stage if task else ""
            return store.EventRow(run.id, event.at, "task started", stage, event.number, event.attempt)
        case events.TaskEnded():
            task = run.tasks.get(event.number)
            text = event.outcome.reason
            if task is not None and task.due_at and event.outcome.failure:
                held = "on hold, " if task.status is TaskStatus.ON_HOLD else ""
                text = f"{text} ({held}will be tried again)"
            stage = task.stage if task else ""
            kind = "task ended" if event.outcome.failure is None else f"task {event.outcome.failure.value}"
            return store.EventRow(run.id, event.at, kind, stage, event.number, event.attempt, text)
        case events.StageOpened():
            text = f"{len(event.drafts)} task{'s' if len(event.drafts) != 1 else ''}"
            return store.EventRow(run.id, event.at, "stage opened", event.stage, text=text)
        case events.StagePlaced():
            return store.EventRow(run.id, event.at, "stage placed", event.stage, text=f"{event.site}: {event.sentence}")
        case events.StageSkipped() | events.StageRefused():
            kind = "stage skipped" if isinstance(event, events.StageSkipped) else "stage refused"
            return store.EventRow(run.id, event.at, kind, event.stage, text=event.reason)
        case events.Begun():
            text = f"in place of {run.instead_of}" if run.instead_of else ""
            return store.EventRow(run.id, event.at, "run begun", text=text)
        case events.CancelAsked():
            return store.EventRow(run.id, event.at, "cancel asked", text=event.reason)
        case events.RetryAsked():
            return store.EventRow(run.id, event.at, "retry asked", event.stage)
        case events.ResumeAsked():
            return store.EventRow(run.id, event.at, "resume asked", text=" ".join(filter(None, event.sites)))
        case events.Recovered():
            return store.EventRow(run.id, event.at, "engine restarted")
        case _:
            return None
