"""What people and programs ask of Beamway, in Python. The command line is made of this and nothing else.

With the setting `url` it asks the service there over HTTP; else the service of this home. It is the same either way.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import protocol
from orchestrator.client.base import Backend
from orchestrator.client.files import Files
from orchestrator.client.lineage import Lineage
from orchestrator.client.local import Local
from orchestrator.client.retention import Retention
from orchestrator.client.watches import Watches
from orchestrator.errors import Unavailable
from orchestrator.model import RUN_ENDED, Definition, Placing, Plan, Run
from orchestrator.settings import Settings
from orchestrator.store.letters import Letter
from orchestrator.store.runs import EventRow
from orchestrator.store.search import Place, Summary, Wanted

if TYPE_CHECKING:
    from orchestrator.engine.placement import Placement
    from orchestrator.engine.why import Why

POLL_S = 0.1  # how often a waiting client looks


class Client:
    """One installation of Beamway, as seen by a user. Not thread-safe. Use as a context manager."""

    def __init__(self, settings: Settings, *, starts: bool = True) -> None:
        """`starts`: the service of this home is started where none runs."""
        self.settings = settings
        self._backend: Backend
        if settings.url:
            from orchestrator.client.remote import Remote

            self._backend = Remote(settings)
        else:
            self._backend = Local(settings, starts=starts)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._backend.close()

    @property
    def watches(self) -> Watches:
        """Watched directories, and what has arrived in them."""
        return self._backend.watches

    @property
    def files(self) -> Files:
        """The catalog: experiments, files and collections."""
        return self._backend.files

    @property
    def retention(self) -> Retention:
        """Which copies stay, go, are archived and restored."""
        return self._backend.retention

    @property
    def lineage(self) -> Lineage:
        """What came from what, and what is stale."""
        return self._backend.lineage

    # ---- workflows

    def workflow_directories(self) -> list[Path]:
        """Where definitions are looked for by name: the settings' directories, the home's, the standard ones."""
        return self.settings.workflow_directories

    def site_directories(self) -> list[Path]:
        return self.settings.site_directories

    def definition(self, name_or_path: str) -> Definition:
        """Load a definition from a file or by name. Raises DefinitionError, NotFound."""
        return self._backend.definition(name_or_path)

    def plan(
        self,
        definition: Definition,
        arguments: Mapping[str, str],
        *,
        directory: str = "",
        strict: bool = False,
        placing: Placing | None = None,
    ) -> Plan:
        """What this definition means for these arguments. Raises DefinitionError, ArgumentError, InputError."""
        return self._backend.plan(
            definition, arguments, directory=directory, strict=strict, placing=placing or Placing()
        )

    def placements(self, plan: Plan) -> list[Placement]:
        """Where each stage whose site is `auto` would go now, and why; the sites' schedulers are asked, side by side.

        Input files are looked at; those that earlier stages would make count for nothing.
        """
        return self._backend.placements(plan)

    # ---- wishes

    def submit(self, plan: Plan, *, run_id: str = "", username: str = "") -> str:
        """Begin a run; returns its id when the run is on the disk. Asking again with the same id is harmless."""
        return self._backend.submit(plan, run_id=run_id, username=username)

    def submit_all(self, plans: Iterable[Plan], *, username: str = "") -> list[str]:
        """Begin many runs; returns their ids when all are on the disk.

        Raises Unavailable when the service dies in between; which of them it had accepted, `ls` shows.
        """
        return self._backend.submit_all(plans, username=username)

    def start_all(
        self,
        definition: Definition,
        many: Iterable[Mapping[str, str]],
        *,
        directory: str = "",
        placing: Placing | None = None,
        username: str = "",
    ) -> list[str]:
        """A run for each of these arguments; their ids when all are on the disk. Over HTTP with few requests.

        Raises what `plan` and `submit_all` raise.
        """
        return self._backend.start_all(
            definition, many, directory=directory, placing=placing or Placing(), username=username
        )

    def cancel(self, run_id: str, reason: str = "cancelled by the user") -> None:
        """Ask for the end of a run; it is `aborted` when no process of it is left. Raises NotFound, Conflict."""
        self._backend.cancel(run_id, reason)

    def retry(self, run_id: str, stage: str = "") -> None:
        """Run again what did not pass, or `stage` and all after it. Raises NotFound, Conflict."""
        self._backend.retry(run_id, stage)

    def resume(self, run_id: str = "", *, site: str = "") -> tuple[str, ...]:
        """Try at once what is on hold, of this run or at this site; the runs that go on. Raises Conflict."""
        return self._backend.resume(run_id, site)

    # ---- dead letters

    def dead(
        self, *, workflow: str = "", experiment: str = "", site: str = "", since: float = 0.0, limit: int = 1_000_000
    ) -> list[Letter]:
        """The runs that failed for good and that nobody has dealt with, the newest first."""
        return self._backend.dead(workflow=workflow, experiment=experiment, site=site, since=since, limit=limit)

    def letter(self, run_id: str) -> Letter:
        """Raises NotFound."""
        return self._backend.letter(run_id)

    def fix(self, run_id: str, arguments: Mapping[str, str]) -> Letter:
        """Write down arguments for another run in its place. Raises NotFound, and ArgumentError for what cannot be."""
        return self._backend.fix(run_id, arguments)

    def resend(self, run_id: str) -> str:
        """Run again what did not pass; where arguments were fixed, begin another run in its place. The id of the run
        that goes on. Raises NotFound."""
        return self._backend.resend(run_id)

    def dismiss(self, run_id: str) -> None:
        """Take it off the list; it stays failed. Raises NotFound."""
        self._backend.dismiss(run_id)

    # ---- reading

    def find(self, prefix: str) -> str:
        """The full id for the beginning of one, or for `last`. Raises NotFound."""
        return self._backend.find(prefix)

    def run(self, run_id: str) -> Run:
        return self._backend.run(run_id)

    def why(self, run_id: str) -> Why:
        """Why the run is where it is, at this moment."""
        return self._backend.why(run_id)

    def ended(self, ids: Collection[str]) -> set[str]:
        """Those of these runs that are over."""
        return self._backend.ended(ids)

    def runs(
        self,
        *,
        status: str = "",
        workflow: str = "",
        experiment: str = "",
        file: str = "",
        since: float = 0.0,
        until: float = 0.0,
        before: Place | None = None,
        limit: int = 50,
    ) -> list[Summary]:
        """The newest first, of those that are all this; the `place` of the last is the `before` of the next page."""
        return self._backend.runs(Wanted(status, workflow, experiment, file, since, until, before), limit)

    def written(self, run_id: str, number: int, attempt: int, *, stderr: bool = False, after: int = 0) -> bytes:
        """The next piece of what this attempt of a task has written; empty when there is no more yet."""
        return self._backend.written(run_id, number, attempt, stderr=stderr, after=after)

    def events(self, run_id: str, after: int = 0) -> list[EventRow]:
        return self._backend.events(run_id, after)

    def live(self, run_id: str) -> protocol.Live:
        """Progress and waits at this moment; empty when no service answers."""
        return self._backend.live(run_id)

    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        return self._backend.counts()

    def follow(
        self, run_id: str, *, poll_s: float = POLL_S, timeout_s: float = 0.0, beat_s: float = 0.0
    ) -> Iterator[Run]:
        """The run each time it has changed, until it is over. A service that has died is started again.

        With `beat_s` the run as last seen also comes that often without a change, for a display that shows progress.
        Raises Unavailable when `timeout_s` is over first (0: wait for ever).
        """
        over = time.monotonic() + timeout_s if timeout_s else float("inf")
        seen = -1
        asked_at = yielded_at = 0.0
        while True:
            newest = self._backend.last_event(run_id)
            if newest != seen:
                seen = newest
                run = self.run(run_id)
                yielded_at = time.monotonic()
                yield run
                if run.status in RUN_ENDED and self._backend.last_event(run_id) == seen:
                    return
            elif beat_s and time.monotonic() - yielded_at > beat_s:
                yielded_at = time.monotonic()
                yield run
            if time.monotonic() > over:
                raise Unavailable(
                    f"Run {run_id} was not over after {timeout_s:g} s; it goes on.", f"`beamway why {run_id}`"
                )
            if time.monotonic() - asked_at > 1.0:
                asked_at = time.monotonic()
                self.ensure_service()
            time.sleep(poll_s)

    # ---- the service

    def service(self) -> protocol.Pong | None:
        """What the service says of itself; None when none answers."""
        return self._backend.service()

    def ensure_service(self) -> None:
        """Start the service of this home unless it answers. Raises Unavailable when none does in time."""
        self._backend.ensure_service()

    def stop_service(self, timeout_s: float = 30.0) -> bool:
        """End the service and its agents; runs go on when it is started again. False when none ran."""
        return self._backend.stop_service(timeout_s)
