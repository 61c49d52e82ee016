"""The service: the engine behind a socket, and the agents it looks after.

One thread, one loop: read what clients and agents say, let the engine turn (which saves), then answer and send. Nothing
is answered before it is on the disk.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import time
from collections.abc import Callable

import structlog

from orchestrator import events, protocol
from orchestrator.engine import place_sites
from orchestrator.engine.loop import Effects, Engine, new_run
from orchestrator.errors import BeamwayError, Conflict, Unavailable
from orchestrator.locks import lock, service_lock
from orchestrator.model import FailureClass, Outcome, Run, split_token
from orchestrator.service.agents import Site
from orchestrator.service.placing import Placer, learn
from orchestrator.service.supervisor import Supervisor
from orchestrator.settings import Settings, ensure_home
from orchestrator.store.database import Database

BEAT_S = 0.5  # the longest the loop sleeps: agents are tended and idleness is noticed at least this often
VERSION = "1"
RUN_ID = re.compile(r"[A-Za-z0-9-]{1,64}")  # it names a directory

log = structlog.get_logger()


class Peer:
    """One connection: a client, or after `Hello` an agent."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.frames = protocol.Frames()
        self.site: Site | None = None
        self.key = object()
        self._out = bytearray()

    def send(self, message: protocol.Message) -> None:
        self._out += protocol.pack(message)
        self.flush()

    def flush(self) -> None:
        """Write what the socket takes now; the rest goes when it is writable."""
        try:
            while self._out:
                written = self.socket.send(self._out)
                del self._out[:written]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()  # the reading side sees the end of this connection

    @property
    def pending(self) -> bool:
        return bool(self._out)


class Server:
    def __init__(self, settings: Settings, *, idle_exit_s: float = 0.0) -> None:
        """`idle_exit_s`: end after so long without runs and clients; 0: never."""
        self._settings = settings
        self._home = settings.home
        self._idle_exit_s = idle_exit_s
        self._selector = selectors.DefaultSelector()
        self._peers: set[Peer] = set()
        self._sites: dict[str, Site] = {}
        self._supervisors = {settings.site: Supervisor(self._home, settings.site, clock=time.monotonic)}
        self._replies: list[tuple[Peer, protocol.Message]] = []
        self._progress: dict[str, tuple[float, str]] = {}
        self._waits: dict[str, tuple[float, str]] = {}
        self._busy_at = time.monotonic()
        self._stopping = False
        self._database = Database(settings.database_url)
        self._engine = Engine(
            self._database,
            self._home,
            clock=time.time,
            default_site=settings.site,
            shell_text=_shell_text_allowed(settings),
        )
        self._placer = Placer(
            settings, self._database, ask=lambda site, asked: self._site(site).ask(asked), shut=self._shut
        )

    def run(self) -> None:
        """Serve until told to stop. The caller holds the lock of the home."""
        self._database.upgrade()
        self._listening = protocol.listen(self._home)
        self._listening.setblocking(False)
        self._selector.register(self._listening, selectors.EVENT_READ, None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        log.info("service.started", home=str(self._home), unfinished=self._engine.recover())
        if not self._idle_exit_s:  # a service that stays has the workers of reservations warm before a run asks
            for profile in place_sites.candidates(self._settings.site, self._home / "sites"):
                if any(r.warm for r in profile.reservations) and not profile.local:
                    self._site(profile.name)
        tended_at = 0.0
        while not self._stopping:
            now = time.monotonic()
            if now - tended_at >= BEAT_S:
                tended_at = now
                for supervisor in self._supervisors.values():
                    supervisor.tend()
                for site in self._sites.values():
                    if site.tend():
                        resumed = self._engine.resume_site(site.name)
                        log.info("site.works_again", site=site.name, resumed=len(resumed))
                if self._idle(now):
                    log.info("service.idle")
                    break
            self._listen_once()
            self._turn()
        self._shut_down()

    def _on_signal(self, number: int, _frame: object) -> None:
        self._stopping = True

    # ---- one round

    def _listen_once(self) -> None:
        wait_s = BEAT_S
        if self._engine.next_due is not None:
            wait_s = min(wait_s, max(0.0, self._engine.next_due - time.time()))
        for key, ready in self._selector.select(wait_s):
            peer = key.data
            if peer is None:
                self._accept()
                continue
            if ready & selectors.EVENT_WRITE:
                peer.flush()
            if ready & selectors.EVENT_READ:
                self._read(peer)
            self._watch(peer)

    def _turn(self) -> None:
        self._engine.due(time.time())
        for run_id, event in self._placer.due(self._engine.runs):
            self._engine.feed(run_id, event)
        try:
            effects = self._engine.turn()
        except Unavailable as error:
            log.error("store.failed", reason=error.sentence)
            refusal = protocol.Refused(error.sentence, error.hint, error.exit_code)
            waiting = [peer for peer, _ in self._replies if peer.site is None]
            self._replies = [(peer, reply) for peer, reply in self._replies if peer.site is not None]
            self._engine.forget_unsaved()
            for peer in waiting:
                peer.send(refusal)
            time.sleep(BEAT_S)
            return
        replies, self._replies = self._replies, []
        self._carry_out(effects)
        for peer, reply in replies:
            peer.send(reply)
            self._watch(peer)

    def _carry_out(self, effects: Effects) -> None:
        touched: set[Site] = set()
        for name, order in effects.launches:
            site = self._site(name)
            site.order(order)
            touched.add(site)
        for name, token in effects.kills:
            for never_left in self._site(name).kill([token]):
                run_id, number, attempt = split_token(never_left)
                outcome = Outcome(FailureClass.CANCELLED, "cancelled before it began")
                self._engine.feed(run_id, events.TaskEnded(time.time(), number, attempt, outcome))
        for run_id, place in effects.places:
            self._placer.begin(run_id, place)
        for site in touched:
            site.flush()
        for run in effects.finished:
            self._finished(run)
        if effects.kills:
            self._turn()

    def _finished(self, run: Run) -> None:
        log.info("run.finished", run=run.id, workflow=run.plan.workflow, status=run.status.value, error=run.error)
        try:
            learn(self._database, run, lambda site: site or self._settings.site)
        except BeamwayError as error:
            log.warning("history.not_kept", run=run.id, reason=error.sentence)
        for shown in (self._progress, self._waits):
            for token in [t for t in shown if t.startswith(run.id)]:
                del shown[token]

    # ---- connections

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        connection.setblocking(False)
        peer = Peer(connection)
        self._peers.add(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def _watch(self, peer: Peer) -> None:
        if peer in self._peers:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.pending else 0)
            self._selector.modify(peer.socket, wanted, peer)

    def _read(self, peer: Peer) -> None:
        try:
            data = peer.socket.recv(1 << 20)
            messages = peer.frames.feed(data) if data else []
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            log.warning("peer.broken", reason=str(error))
            data, messages = b"", []
        if not data:
            self._drop(peer)
            return
        self._busy_at = time.monotonic()
        for message in messages:
            self._hear(peer, message)

    def _drop(self, peer: Peer) -> None:
        self._selector.unregister(peer.socket)
        peer.socket.close()
        self._peers.discard(peer)
        if peer.site is not None:
            log.warning("agent.gone", site=peer.site.name)
            peer.site.detach(peer.key)

    def _hear(self, peer: Peer, message: protocol.AnyMessage) -> None:
        match message:
            case protocol.Report():
                self._reported(peer, message)
            case protocol.Hello():
                log.info("agent.hello", site=message.site, pid=message.pid, holding=len(message.holding))
                peer.site = self._site(message.site)
                peer.site.attach(peer.key, lambda m: self._send(peer, m), message.holding)
            case protocol.Estimated():
                if peer.site is not None:
                    self._placer.answered(peer.site.name, message)
            case protocol.Submit():
                self._replies.append((peer, self._submit(message)))
            case protocol.Cancel():
                self._replies.append((peer, self._cancel(message)))
            case protocol.Retry():
                self._replies.append((peer, self._retry(message)))
            case protocol.Resume():
                self._replies.append((peer, self._resume(message)))
            case protocol.Peek():
                progress, waits = (
                    {t: p for t, p in shown.items() if t.startswith(message.run_id)}
                    for shown in (self._progress, self._waits)
                )
                waits |= self._placer.waits(message.run_id)
                peer.send(protocol.Live(progress, waits, self._connected(), self._shut()))
            case protocol.Ping():
                peer.send(protocol.Pong(os.getpid(), VERSION, self._connected(), len(self._engine.runs), self._shut()))
            case protocol.Stop():
                self._stopping = True
                self._replies.append((peer, protocol.Accepted("")))
            case _:
                log.warning("message.unexpected", kind=type(message).__name__)

    def _send(self, peer: Peer, message: protocol.Message) -> None:
        peer.send(message)
        self._watch(peer)

    def _submit(self, message: protocol.Submit) -> protocol.Message:
        if not RUN_ID.fullmatch(message.run_id):
            return protocol.Refused(f"{message.run_id!r} cannot be the id of a run: letters, digits and dashes only.")
        run = new_run(
            message.run_id,
            message.plan,
            time.time(),
            files=message.files,
            username=message.username,
            host=message.host,
        )
        self._engine.submit(run)
        return protocol.Accepted(run.id)

    def _cancel(self, message: protocol.Cancel) -> protocol.Message:
        if not self._engine.active(message.run_id):
            return protocol.Refused(f"Run {message.run_id} is over, or none.", "", Conflict.exit_code)
        self._engine.feed(message.run_id, events.CancelAsked(time.time(), message.reason))
        return protocol.Accepted(message.run_id)

    def _retry(self, message: protocol.Retry) -> protocol.Message:
        try:
            self._engine.retry(message.run_id, message.stage)
        except BeamwayError as error:
            return protocol.Refused(error.sentence, error.hint, error.exit_code)
        return protocol.Accepted(message.run_id)

    def _resume(self, message: protocol.Resume) -> protocol.Message:
        if message.site:
            if message.site in self._sites:
                self._sites[message.site].breaker.try_now()
            return protocol.Resumed(tuple(self._engine.resume_site(message.site)))
        try:
            self._engine.resume(message.run_id)
        except BeamwayError as error:
            return protocol.Refused(error.sentence, error.hint, error.exit_code)
        return protocol.Resumed((message.run_id,))

    def _reported(self, peer: Peer, report: protocol.Report) -> None:
        for event in report.events:
            if isinstance(event, protocol.Progress):
                self._progress[event.token] = (event.fraction, event.text)
                continue
            if isinstance(event, protocol.Waits):
                if event.text:
                    self._waits[event.token] = (event.since, event.text)
                else:
                    self._waits.pop(event.token, None)
                continue
            self._waits.pop(event.token, None)
            run_id, number, attempt = split_token(event.token)
            if isinstance(event, protocol.Started):
                if peer.site is not None:
                    peer.site.breaker.began()
                self._engine.feed(run_id, events.TaskStarted(event.at, number, attempt))
            else:
                self._progress.pop(event.token, None)
                if peer.site is not None:
                    peer.site.ended(event.token, event.outcome)
                self._engine.feed(run_id, events.TaskEnded(time.time(), number, attempt, event.outcome))
        if peer.site is not None:
            peer.site.flush()
        self._replies.append((peer, protocol.Stored(report.number)))

    # ---- small things

    def _site(self, name: str) -> Site:
        """The site of that name; the first word about it starts its agent."""
        if name not in self._supervisors:
            self._supervisors[name] = Supervisor(self._home, name, clock=time.monotonic)
        return self._sites.setdefault(name, Site(name))

    def _connected(self) -> tuple[str, ...]:
        return tuple(s.name for s in self._sites.values() if s.connected)

    def _shut(self) -> dict[str, tuple[float, str]]:
        """Sites to which nothing is sent at the moment: since when, and why."""
        return {s.name: (s.breaker.since, s.breaker.sentence) for s in self._sites.values() if s.breaker.since}

    def _idle(self, now: float) -> bool:
        if self._engine.runs or any(p.site is None for p in self._peers):
            self._busy_at = now
        return self._idle_exit_s > 0 and now - self._busy_at > self._idle_exit_s

    def _shut_down(self) -> None:
        """Agents end what runs; it is taken up again when the service is started again."""
        try:
            self._turn()
        finally:
            for site in self._sites.values():
                site.dismiss()
            for supervisor in self._supervisors.values():
                supervisor.wait(timeout_s=20.0)
            self._listening.close()
            (self._home / protocol.SOCKET).unlink(missing_ok=True)
            self._database.close()
        log.info("service.stopped", unfinished=len(self._engine.runs))


def _shell_text_allowed(settings: Settings) -> Callable[[str], bool]:
    allowed: dict[str, bool] = {}

    def ask(site: str) -> bool:
        if site not in allowed:
            from sites import loader

            allowed[site] = loader.load(site, [settings.home / "sites"]).policies.allow_shell_text
        return allowed[site]

    return ask


def serve(settings: Settings, *, idle_exit_s: float = 0.0) -> int:
    """Be the service of this home until stopped; 0, or 75 when another process is it already."""
    ensure_home(settings.home)
    held = lock(service_lock(settings.home))
    if held is None:
        log.info("service.already_running")
        return Unavailable.exit_code
    Server(settings, idle_exit_s=idle_exit_s).run()
    return 0
