"""What people and programs ask of Beamway, in Python. The command line is made of this and nothing else.

Reading goes to the store. Wishes (submit, cancel, retry) go to the service, which answers when they are on the disk;
when no service runs for this home, one is started and ends by itself after a while without work.
"""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator import locks, protocol
from orchestrator.errors import BeamwayError, Conflict, NotFound, Unavailable, UserError
from orchestrator.model import RUN_ENDED, Definition, Placing, Plan, Run, StageKind, StagePlan
from orchestrator.settings import Settings, ensure_home
from orchestrator.store import runs as store
from orchestrator.store import search
from orchestrator.store.database import Database
from orchestrator.store.runs import EventRow
from orchestrator.store.search import Place, Summary, Wanted

if TYPE_CHECKING:
    from orchestrator.engine.placement import Placement
    from sites.schema import SiteProfile

START_S = 30.0  # a service must answer within this
AHEAD = 256  # submissions sent before the answer to the first is read
POLL_S = 0.1  # how often a waiting client looks at the store

M = TypeVar("M", bound=protocol.Message)


class Client:
    """One installation of Beamway, as seen by a user. Not thread-safe. Use as a context manager."""

    def __init__(self, settings: Settings) -> None:
        ensure_home(settings.home)
        self.settings = settings
        self._database = Database(settings.database_url)
        self._database.ensure()
        self._connection: socket.socket | None = None
        self._frames = protocol.Frames()
        self._heard: deque[protocol.AnyMessage] = deque()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._disconnect()
        self._database.close()

    # ---- workflows

    def workflow_directories(self) -> list[Path]:
        """Where definitions are looked for by name: the settings' directories, the home's, the standard ones."""
        import workflows

        own = [Path(w).expanduser() for w in self.settings.workflows]
        return [*own, self.settings.home / "workflows", Path(workflows.__file__).parent]

    def site_directories(self) -> list[Path]:
        return [self.settings.home / "sites"]

    def definition(self, name_or_path: str) -> Definition:
        """Load a definition from a file or by name. Raises DefinitionError, NotFound."""
        from orchestrator.definition import loader

        return loader.find(name_or_path, self.workflow_directories())

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
        from orchestrator.definition.plan import compile_plan

        plan = compile_plan(
            definition,
            arguments,
            directory=os.path.abspath(directory or os.getcwd()),
            find_child=self.definition,
            strict=strict,
            shell_text=self._allows_shell_text,
            placing=placing or Placing(),
        )
        self._check_sites(plan)
        return plan

    def _allows_shell_text(self, site: str) -> bool:
        from sites import loader

        name = self.settings.site if site in ("", "auto") else site
        return loader.load(name, self.site_directories()).policies.allow_shell_text

    def _check_sites(self, plan: Plan) -> None:
        """Every site a stage names must exist, and have what the stage asks for."""
        from orchestrator.engine import place_sites
        from sites import loader

        for stage in plan.stages:
            name = stage.placing.site or self.settings.site
            if name == "auto" or stage.kind is StageKind.WORKFLOW:
                continue
            profile = loader.load(name, self.site_directories())
            sentence = place_sites.forbidden(profile, stage.resources, stage.placing)
            if sentence:
                raise UserError(
                    f"Stage {stage.name!r} cannot run at site {name!r}: {sentence}.",
                    "Ask for less in its 'resources', or run it at another site.",
                )

    def placements(self, plan: Plan) -> list[Placement]:
        """Where each stage whose site is `auto` would go now, and why; the sites' schedulers are asked, side by side.

        Input files are looked at; those that earlier stages would make count for nothing.
        """
        from orchestrator.engine import opening, place_sites

        stages = [s for s in plan.stages if s.placing.site == "auto" and s.kind is not StageKind.WORKFLOW]
        sites = list(place_sites.candidates(self.settings.site, self.site_directories()[0])) if stages else []
        run = Run("", plan, time.time(), files=opening.files_at_submission(plan)) if stages else None
        found = []
        for stage in stages:
            assert run is not None
            with ThreadPoolExecutor(max(1, len(sites))) as pool:
                views = pool.map(lambda profile, s=stage: _outlook(profile, s), sites)
                looked = list(zip(sites, views, strict=True))
            found.append(place_sites.predict(self._database, run, stage, looked, now=time.time()))
        return found

    # ---- wishes

    def submit(self, plan: Plan, *, run_id: str = "", username: str = "") -> str:
        """Begin a run; returns its id when the run is on the disk. Asking again with the same id is harmless."""
        return self._ask(_submission(plan, run_id, username), protocol.Accepted).run_id

    def submit_all(self, plans: Iterable[Plan], *, username: str = "") -> list[str]:
        """Begin many runs; returns their ids when all are on the disk.

        Raises Unavailable when the service dies in between; which of them it had accepted, `ls` shows.
        """
        self.ensure_service()
        connection = self._connected()
        ids: list[str] = []
        answers = 0
        try:
            for plan in plans:
                message = _submission(plan, "", username)
                ids.append(message.run_id)
                connection.sendall(protocol.pack(message))
                if len(ids) - answers >= AHEAD:
                    _expect(self._hear(), protocol.Accepted)
                    answers += 1
            for _ in range(answers, len(ids)):
                _expect(self._hear(), protocol.Accepted)
        except OSError as error:
            self._disconnect()
            raise Unavailable(f"The service does not answer: {error}.", "`beamway ls` shows what it has.") from error
        return ids

    def cancel(self, run_id: str, reason: str = "cancelled by the user") -> None:
        """Ask for the end of a run; it is `aborted` when no process of it is left. Raises NotFound, Conflict."""
        run = self.run(run_id)
        if run.status in RUN_ENDED:
            raise Conflict(f"Run {run.id} is over: {run.status.value}.")
        self._ask(protocol.Cancel(run.id, reason), protocol.Accepted)

    def retry(self, run_id: str, stage: str = "") -> None:
        """Run again what did not pass, or `stage` and all after it. Raises NotFound, Conflict."""
        self._ask(protocol.Retry(run_id, stage), protocol.Accepted)

    # ---- reading

    def find(self, prefix: str) -> str:
        """The full id for the beginning of one, or for `last`. Raises NotFound."""
        return search.find(self._database, prefix)

    def run(self, run_id: str) -> Run:
        return store.load(self._database, run_id)

    def ended(self, ids: Collection[str]) -> set[str]:
        """Those of these runs that are over."""
        return search.ended(self._database, ids)

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
        wanted = Wanted(status, workflow, experiment, file, since, until, before)
        return search.listing(self._database, wanted, limit=limit)

    def events(self, run_id: str, after: int = 0) -> list[EventRow]:
        return store.events_after(self._database, run_id, after)

    def live(self, run_id: str) -> protocol.Live:
        """Progress and waits at this moment; empty when no service answers."""
        try:
            return self._ask(protocol.Peek(run_id), protocol.Live, start=False)
        except Unavailable:
            return protocol.Live({}, {}, ())

    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        return search.counts(self._database)

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
            newest = store.last_event(self._database, run_id)
            if newest != seen:
                seen = newest
                run = self.run(run_id)
                yielded_at = time.monotonic()
                yield run
                if run.status in RUN_ENDED and store.last_event(self._database, run_id) == seen:
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
        """What the service of this home says of itself; None when none runs."""
        try:
            return self._ask(protocol.Ping(), protocol.Pong, start=False)
        except Unavailable:
            return None

    def ensure_service(self) -> None:
        """Start the service of this home unless it answers. Raises Unavailable when none does in time."""
        path = self.settings.home / "logs" / "service.log"
        over = time.monotonic() + START_S
        started_at = 0.0
        while self.service() is None:
            now = time.monotonic()
            if now > over:
                raise Unavailable("The service did not start.", f"Its log: {path}")
            if not locks.locked(locks.service_lock(self.settings.home)) and now - started_at > START_S / 3:
                started_at = now
                self._start_service(path)
            time.sleep(0.02)

    def _start_service(self, log: Path) -> None:
        log.parent.mkdir(exist_ok=True, mode=0o700)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.posix_spawn(  # not a child to wait for: it outlives us, and its lock says whether it lives
            sys.executable,
            [sys.executable, "-m", "orchestrator.service", "--idle-exit"],
            {**os.environ, "BEAMWAY_HOME": str(self.settings.home)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )

    def stop_service(self, timeout_s: float = 30.0) -> bool:
        """End the service and its agents; runs go on when it is started again. False when none ran."""
        try:
            self._ask(protocol.Stop(), protocol.Accepted, start=False)
        except Unavailable:
            return False
        over = time.monotonic() + timeout_s
        while locks.locked(locks.service_lock(self.settings.home)):
            if time.monotonic() > over:
                raise Unavailable(f"The service did not end within {timeout_s:g} s.")
            time.sleep(0.02)
        return True

    def _ask(self, message: protocol.Message, expected: type[M], *, start: bool = True) -> M:
        """One question, one answer; asked once more when the service died in between."""
        for again in (True, False):
            if start and self._connection is None:
                self.ensure_service()
            try:
                self._connected().sendall(protocol.pack(message))
                return _expect(self._hear(), expected)
            except OSError as error:
                self._disconnect()
                if not (start and again):
                    raise Unavailable(f"The service does not answer: {error}.", "`beamway up` starts it.") from error
                time.sleep(0.2)
        raise AssertionError("unreachable")

    def _connected(self) -> socket.socket:
        if self._connection is None:
            self._connection = protocol.connect(self.settings.home, timeout_s=START_S)
            self._frames = protocol.Frames()
            self._heard.clear()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _hear(self) -> protocol.AnyMessage:
        connection = self._connected()
        while not self._heard:
            data = connection.recv(1 << 20)
            if not data:
                raise ConnectionError("it ended the connection")
            self._heard.extend(self._frames.feed(data))
        return self._heard.popleft()


_REFUSALS: dict[int, type[BeamwayError]] = {e.exit_code: e for e in (Unavailable, Conflict, NotFound)}


def _outlook(profile: SiteProfile, stage: StagePlan) -> protocol.SiteView:
    from orchestrator import schedulers
    from orchestrator.engine import place_sites
    from orchestrator.schedulers import outlook

    now = time.time()
    if profile.local:
        return protocol.SiteView(now)
    try:
        scheduler = schedulers.of(profile)
    except BeamwayError:  # declared and not built yet: it answers nobody, and the others are asked all the same
        return protocol.SiteView(now, silent_since=now)
    return outlook.ask(scheduler, profile, stage.resources, place_sites.queues(profile, stage.placing))


def _submission(plan: Plan, run_id: str, username: str) -> protocol.Submit:
    from orchestrator.engine import opening

    return protocol.Submit(
        run_id or str(uuid.uuid4()),
        plan,
        files=opening.files_at_submission(plan),
        username=username or getpass.getuser(),
        host=socket.gethostname(),
    )


def _expect(answer: protocol.AnyMessage, expected: type[M]) -> M:
    if isinstance(answer, expected):
        return answer
    if isinstance(answer, protocol.Refused):
        raise _REFUSALS.get(answer.exit_code, BeamwayError)(answer.sentence, answer.hint)
    raise Unavailable(f"The service answered {type(answer).__name__} to a question.", "Is it of another version?")
