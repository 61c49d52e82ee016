"""The agent of one site: takes orders, has them carried out through Parsl, reports what came of them.

One thread owns all state here and talks to the service; commands wait in threads, kernels run in pilot workers, and
both come back through a queue. A report is kept until the service has stored it, and sent again over a new connection.
When the service is gone for `LEASE_S` and nothing runs any more, the agent ends; what it knows is in the exit records.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from msgspec.structs import replace

from orchestrator import codec, protocol
from orchestrator.agent import attach, claim, executors, link, output, processes, wrapper
from orchestrator.agent.cluster import Cluster
from orchestrator.agent.shell import Shell
from orchestrator.jobs import JobState
from orchestrator.model import FailureClass, Order, Outcome, StageKind
from orchestrator.outside import effect

BEAT_S = 0.25  # how often starts, progress and time-outs are looked at
LEASE_S = 60.0  # how long the agent waits for a service that has gone
GRACE_S = processes.GRACE_S
POOL_LOST = 70  # exit status

log = structlog.get_logger()


class _Active:
    """An attempt that is being carried out."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.paths = output.Paths(order)
        self.started_at = 0.0  # seen to have started
        self.asked: FailureClass | None = None  # it was asked to end, for this reason
        self.asked_at = 0.0
        self.checked = False  # a command: what it has made was looked at, or is being
        self.over = False  # its end is reported, and may not be stored yet
        self.progress: tuple[float, str] | None = None
        self.waits = ""


class Agent:
    def __init__(
        self,
        home: Path,
        site: str,
        pool: executors.Executors,
        shell: Shell,
        connection: link.Link,
        *,
        stays: bool = False,
        ours: Mapping[str, str] | None = None,
    ) -> None:
        """`stays`: it waits for its service for ever; else it ends with it once nothing runs any more. `ours`: of the
        environment what is for the agent alone."""
        self._home, self._site = home, site
        self._pool, self._shell = pool, shell
        self.cluster: Cluster | None = None  # set where work goes to a scheduler
        self._slots = home / "agents" / site / "slots"
        self._active: dict[str, _Active] = {}
        self._strays: set[str] = set()  # being ended although this agent has not begun them
        self._arrived: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[tuple[str, float, str]] = queue.SimpleQueue()
        self._views: queue.SimpleQueue[protocol.Estimated] = queue.SimpleQueue()
        self._waking, self._woken = socket.socketpair()
        self._waking.setblocking(False)
        self._woken.setblocking(False)
        self._events: list[link.Event] = []  # not reported yet
        self._link, self._stays = connection, stays
        self._stopping = False
        self._ours = dict(ours or {})

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        selector = selectors.DefaultSelector()
        selector.register(self._woken, selectors.EVENT_READ)
        looked_at = 0.0
        heard_at = time.monotonic()
        while not self._stopping:
            if self._link.socket is None:
                if connection := self._connect():
                    selector.register(connection, selectors.EVENT_READ)
                elif time.monotonic() - heard_at > LEASE_S and not self._busy() and not self._stays:
                    log.warning("agent.no_service", seconds=LEASE_S)
                    break
            else:
                heard_at = time.monotonic()
            for key, _ in selector.select(BEAT_S):
                if key.fileobj is self._woken:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                elif not self._listen():
                    selector.unregister(key.fileobj)
            self._collect()
            if time.monotonic() - looked_at > BEAT_S:
                looked_at = time.monotonic()
                self._look()
                trouble = self._pool.tend() if self.cluster is None else self.cluster.trouble()
                if trouble:
                    log.error("agent.pool_lost", reason=trouble)
                    if self.cluster is not None:
                        self.cluster.leave()
                        self._collect()
                        self._send_events()
                        os._exit(POOL_LOST)  # as if killed: the next agent goes on with the other pilots
                    self._stopping = True
            self._send_events()
        self._shut_down()

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stopping = True

    # ---- the service

    def _connect(self) -> socket.socket | None:
        ended = {e.token for e in self._events if isinstance(e, protocol.Ended)}
        connection = self._link.connect(ended | self._active.keys())
        if connection is None:
            if self._link.taken and self._active:
                self._superseded()
            time.sleep(BEAT_S)
        return connection

    def _superseded(self) -> None:
        """Another agent has the site, and adopts what runs or begins it again: begin anew, as one that stands by.

        Commands go on, the other one waits for their exit records. Calls would be made twice: their workers end.
        """
        log.warning("agent.superseded", active=len(self._active))
        self._link.close()
        clear(self._home, self._site)
        words = [sys.executable, "-m", "orchestrator.agent", self._site, "--stands-by"]
        os.execve(sys.executable, words, {**os.environ, **self._ours})

    def _listen(self) -> bool:
        """Hear what the service says; False when the connection is over."""
        messages = self._link.hear()
        if messages is None:
            return False
        for message in messages:
            match message:
                case protocol.Orders():
                    for order in message.orders:
                        self._begin(order)
                case protocol.Kills():
                    for token in message.tokens:
                        self._end(token, FailureClass.CANCELLED)
                case protocol.Stored():
                    self._forget(message.number)
                case protocol.Estimate():
                    self._estimate(message)
                case protocol.Bye():
                    self._stopping = True
                case _:
                    log.warning("message.unexpected", kind=type(message).__name__)
        return True

    def _forget(self, number: int) -> None:
        for event in self._link.stored(number):
            active = self._active.pop(event.token, None)
            if active is None:
                continue
            adopted = active.order.adopt
            if _left_files(active, event.outcome):
                well = event.outcome.failure is None
                output.tidy(active.paths, well=well, begun=well or bool(active.started_at), adopted=adopted)
            if not adopted:
                claim.drop(active.paths)

    def _send_events(self) -> None:
        while not self._views.empty():
            self._link.say(self._views.get())
        while not self._told.empty():
            token, since, text = self._told.get()
            active = self._active.get(token)
            if active is not None and not active.started_at and active.waits != text:
                active.waits = text
                self._events.append(protocol.Waits(token, since, text))
        if self._events:
            events, self._events = self._events, []
            with effect("report.send"):
                self._link.report(events)

    # ---- attempts

    def _begin(self, order: Order) -> None:
        if order.token in self._active:
            return
        active = self._active[order.token] = _Active(order)
        try:
            self._hand_on(order, active)
        except Exception as error:  # Parsl's own trouble, of any kind: this attempt is lost, the agent goes on
            log.exception("order.failed", token=order.token)
            self.arrive(order.token, Outcome(FailureClass.LOST, f"the agent could not begin it: {error}"))

    def _hand_on(self, order: Order, active: _Active) -> None:
        if self.cluster is not None:
            self.cluster.begin(order)
            return
        if order.kind is StageKind.COMMAND:
            future = self._pool.submit(executors.COMMANDS, self._shell.run, order)
            future.add_done_callback(partial(self._ended, order.token))
            return
        if order.adopt or claim.known(active.paths):
            order, known = claim.adopt_call(order, active.paths)
            if known is not None:
                self.arrive(order.token, known)
                return
        with effect("call.submit"):
            future = self._pool.call(order)
        future.add_done_callback(partial(self._ended, order.token))

    def _ended(self, token: str, future: Future[Any]) -> None:
        """In Parsl's thread."""
        self.arrive(token, _outcome(future))

    def told(self, token: str, since: float, text: str) -> None:
        """What an attempt waits for. From any thread."""
        self._told.put((token, since, text))

    def arrive(self, token: str, outcome: Outcome) -> None:
        """What came of an attempt. From any thread."""
        self._arrived.put((token, outcome))
        self._wake()

    def _estimate(self, asked: protocol.Estimate) -> None:
        """Asking the scheduler takes a while: not in this thread."""

        def answer() -> None:
            view = protocol.SiteView(time.time())
            if self.cluster is not None:
                view = self.cluster.view(asked.resources, asked.queues)
            self._views.put(protocol.Estimated(asked.number, view))
            self._wake()

        threading.Thread(target=answer, daemon=True).start()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._waking.send(b"\0")

    def _collect(self) -> None:
        while True:
            try:
                token, outcome = self._arrived.get_nowait()
            except queue.Empty:
                return
            if self.cluster is None:
                self._shell.forget(token)
            active = self._active.get(token)
            if active is None:
                if token in self._strays:
                    self._strays.discard(token)
                    self._events.append(protocol.Ended(token, outcome))
                continue
            order = active.order
            if self.cluster is not None:
                self.cluster.forget(token)
            elif _to_be_checked(active, outcome):
                active.checked = True
                self._check(order, outcome)
                continue
            active.over = True
            self._events.append(protocol.Ended(token, _as_asked(active, outcome)))

    def _check(self, order: Order, outcome: Outcome) -> None:
        """What a command has made is looked at in a pilot worker: reading a broken file must not harm the agent."""

        def checked(future: Future[Any]) -> None:
            seen = _outcome(future)
            self.arrive(
                order.token,
                replace(
                    outcome,
                    failure=seen.failure,
                    reason=seen.reason,
                    findings=seen.findings,
                    products=seen.products,
                    inputs=seen.inputs,
                    checks_s=seen.checks_s,
                    ended_at=time.time(),
                ),
            )

        try:
            label = self._pool.pilot(1)
            future = self._pool.submit(label, wrapper.check, codec.dumps(order), outcome.started_at)
            future.add_done_callback(checked)
        except Exception as error:  # as in `_begin`
            log.exception("check.failed", token=order.token)
            self.arrive(order.token, Outcome(FailureClass.LOST, f"its outputs could not be checked: {error}"))

    def _end(self, token: str, why: FailureClass) -> None:
        self._collect()  # it may be over
        active = self._active.get(token)
        if active is None:
            if self._end_left_going(token):
                return
            if self.cluster is not None:
                if token not in self._strays:
                    self._strays.add(token)
                    self.cluster.end_unknown(token)
                return
            found = list(processes.with_environment(processes.TOKEN, token))
            processes.end(found)
            self._events.append(protocol.Ended(token, Outcome(FailureClass.CANCELLED, "cancelled")))
            return
        if active.over:
            return
        if active.asked is None:
            active.asked, active.asked_at = why, time.monotonic()
        if self.cluster is None and active.order.kind is StageKind.COMMAND:
            begun = self._shell.end(token, why) or active.order.adopt
        else:
            begun = self._end_call(active)
        if not begun:
            self._events.append(protocol.Ended(token, Outcome(why, "cancelled before it began")))

    def _end_left_going(self, token: str) -> bool:
        """Does an attempt that is over have a transfer that goes on without it? It is ended in a thread."""
        if token in self._strays:
            return True
        if not (self._home / "globus" / "notes").is_dir():  # settings and Globus take a moment to import
            return False
        from orchestrator.agent import globus_stage

        left = globus_stage.left(token)
        if left:
            self._strays.add(token)
            threading.Thread(target=lambda: self.arrive(token, globus_stage.end(left)), daemon=True).start()
        return bool(left)

    def _end_call(self, active: _Active) -> bool:
        """False when no worker has begun it; the mark keeps one from beginning it later."""
        output.mark(active.paths)
        if self.cluster is not None:
            return self.cluster.end(active.order.token)
        pids = [slot.pid for slot in self._busy_slots() if slot.token == active.order.token]
        for pid in pids:
            _signal_group(pid, signal.SIGTERM)
        return bool(pids)

    # ---- what runs

    def _look(self) -> None:
        """Starts, progress, time-outs, and workers that do not end when asked."""
        if self.cluster is not None:
            self.cluster.look()
        busy = {slot.token: slot for slot in self._busy_slots()}
        now = time.monotonic()
        for token, active in self._active.items():
            if self.cluster is None and active.order.kind is StageKind.COMMAND:
                if not active.started_at and os.path.exists(active.paths.stdout):
                    self._started(active, time.time())
                continue
            slot = busy.get(token)
            if slot is None:
                if self.cluster is not None:
                    self._look_at_job(active)
                continue
            if not active.started_at:
                self._started(active, slot.started_at)
                wrapper.show(self._slots, slot, active.paths)
                if token not in {s.token for s in self._busy_slots()}:  # ended in between
                    wrapper.hide(active.paths)
                if self.cluster is not None:
                    self.cluster.begun(token)
            self._progressed(active)
            timeout_s = active.order.timeout_s
            if active.asked is None and timeout_s and time.time() > slot.started_at + timeout_s:
                self._end(token, FailureClass.TIMEOUT)
            elif active.asked is not None and not slot.host:
                over = now - active.asked_at > GRACE_S
                _signal_group(slot.pid, signal.SIGKILL if over else signal.SIGTERM)

    def _look_at_job(self, active: _Active) -> None:
        """An attempt in a job of its own: what the scheduler and its output say."""
        assert self.cluster is not None
        job = self.cluster.in_batch(active.order.token)
        if not active.started_at and job is not None and job.state is JobState.RUNNING:
            self._started(active, job.started_at or time.time())
        if active.started_at:
            self._progressed(active)

    def _progressed(self, active: _Active) -> None:
        progress = output.last_progress(active.paths.stdout)
        if progress is not None and progress != active.progress:
            active.progress = progress
            self._events.append(protocol.Progress(active.order.token, *progress))

    def _started(self, active: _Active, at: float) -> None:
        active.started_at = at
        self._events.append(protocol.Started(active.order.token, at))

    def _busy_slots(self) -> list[wrapper.Slot]:
        slots = []
        calls = (a for a in self._active.values() if self.cluster is not None or a.order.kind is not StageKind.COMMAND)
        if next(calls, None) is not None:
            with contextlib.suppress(OSError):
                for entry in os.scandir(self._slots):
                    if "." in entry.name:
                        continue
                    with contextlib.suppress(OSError, ValueError):
                        slot = codec.loads(Path(entry.path).read_text().rstrip(), wrapper.Slot)
                        if slot.token:
                            slots.append(slot)
        return slots

    def _busy(self) -> bool:
        return bool(self._active) or (self.cluster is not None and self.cluster.has_found_running())

    def _shut_down(self) -> None:
        """End what runs. It is reported lost when it is looked for again, and begun again."""
        log.info("agent.stopping", active=len(self._active))
        self._shell.end_all()
        for slot in self._busy_slots():
            if not slot.host:
                _signal_group(slot.pid, signal.SIGKILL)
        self._link.close()
        if self.cluster is not None:
            self.cluster.close()
        self._pool.close()
        clear(self._home, self._site)


def _outcome(future: Future[Any]) -> Outcome:
    """What a Parsl future holds; whatever Parsl itself raises means that the worker was lost."""
    error = future.exception()
    if error is None:
        result = future.result()
        return result if isinstance(result, Outcome) else codec.loads(result, Outcome)
    return Outcome(FailureClass.LOST, f"the worker was lost: {type(error).__name__}: {error}", ended_at=time.time())


def _to_be_checked(active: _Active, outcome: Outcome) -> bool:
    """Has a command ended well of which more is asked than that?"""
    order = active.order
    asked = order.kind is StageKind.COMMAND and (order.expect or order.known)
    return bool(asked) and outcome.failure is None and not active.checked


def _left_files(active: _Active, outcome: Outcome) -> bool:
    """May there be files of this attempt to tidy up? A short call that was never seen busy leaves none."""
    lasted_s = outcome.ended_at - outcome.started_at
    seen = active.started_at or active.asked or outcome.failure or lasted_s > wrapper.WORTH_KEEPING_S
    return active.order.kind is StageKind.COMMAND or bool(seen)


def _as_asked(active: _Active, outcome: Outcome) -> Outcome:
    """The outcome of an attempt that was asked to end is that it did, unless it had ended well before."""
    if active.asked is None or outcome.failure in (None, active.asked):
        return outcome
    if active.asked is FailureClass.TIMEOUT:
        reason = f"ended after its timeout of {active.order.timeout_s:g} s"
        return replace(outcome, failure=FailureClass.TIMEOUT, reason=reason)
    return replace(outcome, failure=active.asked, reason="cancelled")


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def clear(home: Path, site: str) -> None:
    """End the worker pools that an earlier agent of this site left on this host, and forget their slots.

    Those of pilots that may be gone on with stay.
    """
    left = processes.end(processes.with_environment(processes.AGENT, f"{home}:{site}"), grace_s=2.0)
    if left:
        log.warning("agent.orphans_ended", processes=left)
    directory = home / "agents" / site
    if not attach.states(directory / "pilots"):
        wrapper.forget_slots(directory / "slots")


def cores_here() -> int:
    return len(os.sched_getaffinity(0))
