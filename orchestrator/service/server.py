"""The service: the engine behind a socket and a gate, and the agents it looks after.

One thread, one loop: read what clients and agents say, let the engine turn (which saves), then answer and send. Nothing
is answered before it is on the disk. The socket is for this home; HTTP comes through the gate, from other threads.
"""

from __future__ import annotations

import os
import re
import selectors
import time
from collections.abc import Callable
from functools import partial

import structlog

from orchestrator import events, locks, protocol
from orchestrator.engine import place_sites
from orchestrator.engine.loop import Effects, Engine, new_run
from orchestrator.engine.tally import Tally
from orchestrator.errors import BeamwayError, Conflict, Stale, Unavailable
from orchestrator.model import FailureClass, Outcome, Run, split_token
from orchestrator.outside import effect
from orchestrator.service.agents import Site, View
from orchestrator.service.cataloguing import Cataloguing
from orchestrator.service.gate import Gate
from orchestrator.service.holding import Holding
from orchestrator.service.peers import Peer, RemoteAgent, SocketPeer
from orchestrator.service.placing import Placer, learn
from orchestrator.service.supervisor import Supervisor
from orchestrator.service.watching import Watching
from orchestrator.settings import Settings
from orchestrator.store.database import Database
from sites import loader

BEAT_S = 0.5  # the longest the loop sleeps: agents are tended and idleness is noticed at least this often
VERSION = "1"
RUN_ID = re.compile(r"[A-Za-z0-9-]{1,64}")  # it names a directory

log = structlog.get_logger()


class Server:
    def __init__(
        self,
        settings: Settings,
        database: Database,
        holding: Holding,
        *,
        idle_exit_s: float = 0.0,
        supervises: bool = True,
    ) -> None:
        """`idle_exit_s`: end after so long without runs and clients; 0: never. `supervises`: it starts the agents."""
        self._settings = settings
        self._home = settings.home
        self._idle_exit_s = idle_exit_s
        self._selector = selectors.DefaultSelector()
        self._peers: set[SocketPeer] = set()
        self._remote: set[RemoteAgent] = set()
        self._sites: dict[str, Site] = {}
        self._supervises = supervises
        self._supervisors: dict[str, Supervisor] = {}
        self._watching = Watching(settings, database) if supervises else None
        self._replies: list[tuple[Peer, protocol.Message]] = []
        self._progress: dict[str, tuple[float, str]] = {}
        self._waits: dict[str, tuple[float, str]] = {}
        self._busy_at = time.monotonic()
        self._stopping = False
        self._recovered = False  # the attempts of the runs that the store had have been ordered
        self.gate = Gate()
        self.view: View | None = None  # how it all stands, twice a second; for other threads
        self.changed: Callable[[], None] = lambda: None  # called after each write, in the loop's thread
        self._database = database
        self._holding = holding
        profiles = partial(loader.load, directories=settings.site_directories)
        self._engine = Engine(
            self._database,
            settings.runs_directory,
            clock=time.time,
            default_site=settings.site,
            fence=holding.lease,
            shell_text=_shell_text_allowed(settings),
            profiles=profiles,
        )
        self._cataloguing = Cataloguing(settings.database_url, holding.lease, settings.site, profiles)
        self._placer = Placer(
            settings, self._database, ask=lambda site, asked: self._site(site).ask(asked), shut=self._shut
        )

    def stop(self) -> None:
        """End at the next round. From a handler of signals."""
        self._stopping = True

    def run(self) -> bool:
        """Serve until told to stop; False when another service has taken the engine over.

        The caller holds the lock of the home, and takes care of the lease.
        """
        self._listening = protocol.listen(self._home)
        self._listening.setblocking(False)
        self._selector.register(self._listening, selectors.EVENT_READ, None)
        self._selector.register(self.gate.woken, selectors.EVENT_READ, self.gate)
        try:
            log.info("service.started", home=str(self._home), unfinished=self._engine.recover())
            self._begin_sites()
            self._recovered = self._turn()
            self._cataloguing.start()
            self._loop()
            self._turn()
        except Unavailable as error:  # Stale, or the store was away just as it was read
            log.error("service.lost_engine", reason=error.sentence)
            return False
        finally:
            self._leave()
        return True

    def _begin_sites(self) -> None:
        self._site(self._settings.site)
        if not self._idle_exit_s:  # a service that stays has the workers of reservations warm before a run asks
            for profile in place_sites.candidates(self._settings.site, self._home / "sites"):
                if any(r.warm for r in profile.reservations) and not profile.local:
                    self._site(profile.name)

    def _loop(self) -> None:
        tended_at = 0.0
        while not self._stopping:
            now = time.monotonic()
            if now - tended_at >= BEAT_S:
                tended_at = now
                self._holding.tend(now)
                for supervisor in self._supervisors.values():
                    supervisor.tend()
                if self._watching is not None and self._watching.tend():
                    self._busy_at = now
                for site in self._sites.values():
                    if site.tend():
                        resumed = self._engine.resume_site(site.name)
                        log.info("site.works_again", site=site.name, resumed=len(resumed))
                self._drop_silent(now)
                self.view = self._seen(now)
                if self._idle(now):
                    log.info("service.idle")
                    break
            self._listen_once()
            self._recovered |= self._turn()

    def _seen(self, now: float) -> View:
        for peer in self._peers:
            if peer.site is not None:
                peer.site.heard_at = now  # the end of a socket's other side is told at once
        for agent in self._remote:
            if agent.site is not None:
                agent.site.heard_at = agent.seen_at
        lines = tuple(site.line(now) for site in self._sites.values())
        return View(now, len(self._engine.runs), len(self._replies), self._holding.lease.fence, lines)

    @property
    def tally(self) -> Tally:
        return self._engine.tally

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
            if peer is self.gate:
                self._busy_at = time.monotonic()
                for asker, message in self.gate.take():
                    self._hear(asker, message)
                continue
            if ready & selectors.EVENT_WRITE:
                peer.flush()
            if ready & selectors.EVENT_READ:
                self._read(peer)
            self._watch(peer)

    def _turn(self) -> bool:
        """False when the store could not be written: what was to be done waits for the next turn."""
        self._engine.due(time.time())
        for run_id, event in self._placer.due(self._engine.runs):
            self._engine.feed(run_id, event)
        try:
            effects = self._engine.turn()
        except Stale:
            raise
        except Unavailable as error:
            log.error("store.failed", reason=error.sentence)
            refusal = protocol.Refused(error.sentence, error.hint, error.exit_code)
            waiting = [peer for peer, _ in self._replies if peer.site is None]
            self._replies = [(peer, reply) for peer, reply in self._replies if peer.site is not None]
            self._engine.forget_unsaved()
            for peer in waiting:
                peer.send(refusal)
            time.sleep(BEAT_S)
            return False
        replies, self._replies = self._replies, []
        self._carry_out(effects)
        for peer, reply in replies:
            self._send(peer, reply)
        if effects.files:
            self._cataloguing.call()
        if replies or effects.finished:
            self.changed()
        return True

    def _carry_out(self, effects: Effects) -> None:
        touched: set[Site] = set()
        for name, order in effects.launches:
            site = self._site(name)
            site.order(order)
            touched.add(site)
        for name, token in effects.kills:
            with effect("kills.send"):
                unsent = self._site(name).kill([token])
            for never_left in unsent:
                run_id, number, attempt = split_token(never_left)
                outcome = Outcome(FailureClass.CANCELLED, "cancelled before it began")
                self._engine.feed(run_id, events.TaskEnded(time.time(), number, attempt, outcome))
        for run_id, place in effects.places:
            self._placer.begin(run_id, place)
        for site in touched:
            with effect("orders.send"):
                site.flush()
        for run in effects.finished:
            self._finished(run)
        if effects.kills:
            self._turn()

    def _finished(self, run: Run) -> None:
        log.info("run.finished", run=run.id, workflow=run.plan.workflow, status=run.status.value, error=run.error)
        try:
            learn(self._database, run, self._settings)
        except BeamwayError as error:
            log.warning("history.not_kept", run=run.id, reason=error.sentence)
        for shown in (self._progress, self._waits):
            for token in [t for t in shown if t.startswith(run.id)]:
                del shown[token]

    # ---- connections

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        connection.setblocking(False)
        peer = SocketPeer(connection)
        self._peers.add(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def _watch(self, peer: SocketPeer) -> None:
        if peer in self._peers:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.pending else 0)
            self._selector.modify(peer.socket, wanted, peer)

    def _read(self, peer: SocketPeer) -> None:
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

    def _drop(self, peer: SocketPeer) -> None:
        self._selector.unregister(peer.socket)
        peer.socket.close()
        self._peers.discard(peer)
        self._detach(peer)

    def _detach(self, peer: Peer) -> None:
        if peer.site is not None:
            log.warning("agent.gone", site=peer.site.name)
            peer.site.detach(peer.key)
            peer.site = None

    def _drop_silent(self, now: float) -> None:
        """A remote agent that has not asked for so long has lost its site; another may have it."""
        for agent in [a for a in self._remote if now - a.seen_at > protocol.AGENT_LEASE_S]:
            self._dismiss(agent)

    def _dismiss(self, agent: RemoteAgent) -> None:
        self._remote.discard(agent)
        self._detach(agent)
        agent.end()

    def _hear(self, peer: Peer, message: protocol.AnyMessage) -> None:
        match message:
            case protocol.Report():
                self._reported(peer, message)
            case protocol.Hello():
                self._hello(peer, message)
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

    def _hello(self, peer: Peer, message: protocol.Hello) -> None:
        """One agent a site: a second one is told to stand by, until the first is silent for the time of its lease."""
        site = self._site(message.site)
        if isinstance(peer, RemoteAgent):
            holder = next((a for a in self._remote if a.site is site), None)
            if holder is not None and holder.holder != message.holder:
                words = f"Site {site.name!r} has its agent: {holder.holder}."
                peer.send(protocol.Refused(words, "This one stands by.", Conflict.exit_code))
                return
            if holder is not None:
                self._dismiss(holder)
            peer.holder = message.holder
            self._remote.add(peer)
            peer.send(protocol.Granted(peer.session, protocol.AGENT_LEASE_S))
        site.complete = self._recovered
        log.info("agent.hello", site=message.site, pid=message.pid, holding=len(message.holding))
        peer.site = site
        site.attach(peer.key, lambda m: self._send(peer, m), message.holding)

    def _send(self, peer: Peer, message: protocol.Message) -> None:
        peer.send(message)
        if isinstance(peer, SocketPeer):
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
            instead_of=message.instead_of,
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
        if isinstance(peer, RemoteAgent) and peer.over:
            return  # it has lost its site: whoever has it now finds out what became of its attempts
        for event in report.events:
            run_id, number, attempt = split_token(event.token)
            if isinstance(event, protocol.Progress):
                if self._engine.active(run_id):  # else nobody would ever take it away again
                    self._progress[event.token] = (event.fraction, event.text)
                continue
            if isinstance(event, protocol.Waits):
                if event.text and self._engine.active(run_id):
                    self._waits[event.token] = (event.since, event.text)
                else:
                    self._waits.pop(event.token, None)
                continue
            self._waits.pop(event.token, None)
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
        """The site of that name; the first word about it starts its agent, unless agents are started elsewhere."""
        if name not in self._supervisors and self._supervises:
            words, lock = ["-m", "orchestrator.agent", name], locks.agent_lock(self._home, name)
            self._supervisors[name] = Supervisor(self._home, f"agent-{name}", lock, words, clock=time.monotonic)
        return self._sites.setdefault(name, Site(name))

    def _connected(self) -> tuple[str, ...]:
        return tuple(s.name for s in self._sites.values() if s.connected)

    def _shut(self) -> dict[str, tuple[float, str]]:
        """Sites to which nothing is sent at the moment: since when, and why."""
        return {s.name: (s.breaker.since, s.breaker.sentence) for s in self._sites.values() if s.breaker.since}

    def _idle(self, now: float) -> bool:
        if self._engine.runs or self._remote or any(p.site is None for p in self._peers):
            self._busy_at = now
        return self._idle_exit_s > 0 and now - self._busy_at > self._idle_exit_s

    def _leave(self) -> None:
        """Nothing is written any more. Agents and watcher of this home end; what ran is taken up again when the service
        is started again; agents of other processes go on, with whoever has the engine next."""
        self._cataloguing.stop()
        try:
            if self._watching is not None:
                self._watching.dismiss()
            for agent in list(self._remote):
                self._dismiss(agent)
            for site in self._sites.values():
                site.dismiss()
        finally:
            for supervisor in self._supervisors.values():
                supervisor.wait(timeout_s=20.0)
            self.gate.close()
            self._listening.close()
            (self._home / protocol.SOCKET).unlink(missing_ok=True)
            for peer, _ in self._replies:
                peer.send(protocol.Refused("The engine is with another service now.", "Ask again.", 75))
            self._replies.clear()
            self._selector.close()
            for left in self._peers:  # whoever waits for an answer waits no longer: the watcher, too
                left.socket.close()
            if self._watching is not None:
                self._watching.end()
        log.info("service.stopped", unfinished=len(self._engine.runs))


def _shell_text_allowed(settings: Settings) -> Callable[[str], bool]:
    allowed: dict[str, bool] = {}

    def ask(site: str) -> bool:
        if site not in allowed:
            allowed[site] = loader.load(site, [settings.home / "sites"]).policies.allow_shell_text
        return allowed[site]

    return ask
