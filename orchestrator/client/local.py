"""The service of this home: wishes go to its socket, reading goes to the store.

When no service runs for this home, one is started and ends by itself after a while without work.
"""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator import locks, protocol, written
from orchestrator.client.files import LocalFiles
from orchestrator.client.lineage import Lineage, LocalLineage
from orchestrator.client.retention import LocalRetention
from orchestrator.client.watches import LocalWatches
from orchestrator.errors import Conflict, Unavailable, of_exit_code
from orchestrator.model import RUN_ENDED, Definition, Placing, Plan, Run
from orchestrator.settings import Settings, ensure_home
from orchestrator.store import letters, search
from orchestrator.store import runs as store
from orchestrator.store.database import Database
from orchestrator.store.letters import Letter
from orchestrator.store.runs import EventRow
from orchestrator.store.search import Summary, Wanted

if TYPE_CHECKING:
    from orchestrator.engine.placement import Placement
    from orchestrator.engine.planner import Planner
    from orchestrator.engine.why import Why

START_S = 30.0  # a service must answer within this
AHEAD = 256  # submissions sent before the answer to the first is read

M = TypeVar("M", bound=protocol.Message)


class Local:
    def __init__(self, settings: Settings, *, starts: bool = True) -> None:
        """`starts`: a service is started where none runs; else it is waited for."""
        ensure_home(settings.home)
        self._settings, self._starts = settings, starts
        self._database = Database(settings.database_url)
        self._database.ensure()
        self.watches = LocalWatches(settings, self._database, self._planner, self.ensure_service)
        self.lineage: Lineage = LocalLineage(
            self._database, self._planner, lambda wish: self._ask(wish, protocol.Accepted)
        )
        self.files = LocalFiles(self._database, settings.site_directories)
        self.retention = LocalRetention(settings, self._database)
        self._connection: socket.socket | None = None
        self._frames = protocol.Frames()
        self._heard: deque[protocol.AnyMessage] = deque()

    def close(self) -> None:
        self._disconnect()
        self._database.close()

    # ---- workflows

    def definition(self, name_or_path: str) -> Definition:
        return self._planner().definition(name_or_path)

    def plan(
        self, definition: Definition, arguments: Mapping[str, str], *, directory: str, strict: bool, placing: Placing
    ) -> Plan:
        return self._planner().plan(definition, arguments, directory=directory, strict=strict, placing=placing)

    def placements(self, plan: Plan) -> list[Placement]:
        return self._planner().placements(plan)

    def _planner(self) -> Planner:
        from orchestrator.engine.planner import Planner

        return Planner(self._settings, self._database)

    # ---- wishes

    def submit(self, plan: Plan, *, run_id: str, username: str) -> str:
        return self._ask(_submission(plan, run_id, username), protocol.Accepted).run_id

    def submit_all(self, plans: Iterable[Plan], *, username: str) -> list[str]:
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

    def start_all(
        self,
        definition: Definition,
        many: Iterable[Mapping[str, str]],
        *,
        directory: str,
        placing: Placing,
        username: str,
    ) -> list[str]:
        planned = (self.plan(definition, a, directory=directory, strict=False, placing=placing) for a in many)
        return self.submit_all(planned, username=username)

    def cancel(self, run_id: str, reason: str) -> None:
        run = self.run(run_id)
        if run.status in RUN_ENDED:
            raise Conflict(f"Run {run.id} is over: {run.status.value}.")
        self._ask(protocol.Cancel(run.id, reason), protocol.Accepted)

    def retry(self, run_id: str, stage: str) -> None:
        self._ask(protocol.Retry(run_id, stage), protocol.Accepted)

    def resume(self, run_id: str, site: str) -> tuple[str, ...]:
        return self._ask(protocol.Resume(run_id, site), protocol.Resumed).runs

    # ---- dead letters

    def dead(self, *, workflow: str, experiment: str, site: str, since: float, limit: int) -> list[Letter]:
        return letters.ls(self._database, workflow=workflow, experiment=experiment, site=site, since=since, limit=limit)

    def letter(self, run_id: str) -> Letter:
        return letters.get(self._database, run_id)

    def fix(self, run_id: str, arguments: Mapping[str, str]) -> Letter:
        self._planner().changed(self.run(run_id).plan, self.letter(run_id).fixes | dict(arguments))
        return letters.fix(self._database, run_id, dict(arguments))

    def resend(self, run_id: str) -> str:
        letter = self.letter(run_id)
        if not letter.fixes:
            self.retry(run_id, "")
            return run_id
        from orchestrator.engine.resending import in_place_of

        who, host = getpass.getuser(), socket.gethostname()
        wish = in_place_of(self.run(run_id), letter, self._planner(), username=who, host=host)
        return self._ask(wish, protocol.Accepted).run_id

    def dismiss(self, run_id: str) -> None:
        letters.dismiss(self._database, run_id, who=getpass.getuser(), now=time.time())

    # ---- reading

    def find(self, prefix: str) -> str:
        return search.find(self._database, prefix)

    def run(self, run_id: str) -> Run:
        return store.load(self._database, run_id)

    def why(self, run_id: str) -> Why:
        from orchestrator.engine import facts
        from orchestrator.engine.why import why

        run = self.run(run_id)
        gathered = facts.gather(
            run,
            now=time.time(),
            live=self._live(run_id),
            site=self._settings.site,
            directories=self._settings.site_directories,
            events=self.events,
        )
        return why(run, gathered)

    def ended(self, ids: Collection[str]) -> set[str]:
        return search.ended(self._database, ids)

    def runs(self, wanted: Wanted, limit: int) -> list[Summary]:
        return search.listing(self._database, wanted, limit=limit)

    def written(self, run_id: str, number: int, attempt: int, *, stderr: bool, after: int) -> bytes:
        return written.piece(self._settings.runs_directory, run_id, number, attempt, stderr=stderr, after=after)

    def events(self, run_id: str, after: int) -> list[EventRow]:
        return store.events_after(self._database, run_id, after)

    def last_event(self, run_id: str) -> int:
        return store.last_event(self._database, run_id)

    def live(self, run_id: str) -> protocol.Live:
        return self._live(run_id) or protocol.Live({}, {}, ())

    def _live(self, run_id: str) -> protocol.Live | None:
        try:
            return self._ask(protocol.Peek(run_id), protocol.Live, start=False)
        except Unavailable:
            return None

    def counts(self) -> dict[str, int]:
        return search.counts(self._database)

    # ---- the service

    def service(self) -> protocol.Pong | None:
        try:
            return self._ask(protocol.Ping(), protocol.Pong, start=False)
        except Unavailable:
            return None

    def ensure_service(self) -> None:
        path = self._settings.home / "logs" / "service.log"
        over = time.monotonic() + START_S
        begun = 0  # pid of the service that was started last
        while self.service() is None:
            if not self._starts:
                raise Unavailable("No service runs for this home.", "`beamway up` starts it.")
            if time.monotonic() > over:
                raise Unavailable("The service did not start.", f"Its log: {path}")
            if not (begun and _lives(begun)) and not locks.locked(locks.service_lock(self._settings.home)):
                begun = self._start_service(path)
            time.sleep(0.02)

    def _start_service(self, log: Path) -> int:
        log.parent.mkdir(exist_ok=True, mode=0o700)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.posix_spawn(  # not a child to wait for: it outlives us, and its lock says whether it lives
            sys.executable,
            [sys.executable, "-m", "orchestrator.service", "--idle-exit"],
            {**os.environ, "BEAMWAY_HOME": str(self._settings.home)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )

    def stop_service(self, timeout_s: float) -> bool:
        try:
            self._ask(protocol.Stop(), protocol.Accepted, start=False)
        except Unavailable:
            return False
        over = time.monotonic() + timeout_s
        while locks.locked(locks.service_lock(self._settings.home)):
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
            self._connection = protocol.connect(self._settings.home, timeout_s=START_S)
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


def _lives(pid: int) -> bool:
    """Is this child of ours still there? One that has ended is buried."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def _submission(plan: Plan, run_id: str, username: str) -> protocol.Submit:
    from orchestrator.engine.opening import submission

    return submission(plan, run_id or str(uuid.uuid4()), username or getpass.getuser(), socket.gethostname())


def _expect(answer: protocol.AnyMessage, expected: type[M]) -> M:
    if isinstance(answer, expected):
        return answer
    if isinstance(answer, protocol.Refused):
        raise of_exit_code(answer.exit_code)(answer.sentence, answer.hint)
    raise Unavailable(f"The service answered {type(answer).__name__} to a question.", "Is it of another version?")
