"""A site with a batch scheduler, as the agent sees it: its pilots, its batch jobs, and what is held back for now.

`begin` finds for every order where it goes (`target.resolve`); an order that cannot go now (a reservation that is gone,
maintenance) is held and looked at again, and says meanwhile what it waits for. What comes back goes to `arrive`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from msgspec.structs import replace
from parsl import python_app
from parsl.dataflow.dflow import DataFlowKernel

from orchestrator import codec, jobscript
from orchestrator.agent import around as surroundings
from orchestrator.agent import batch, claim, folders, output, pilots, wrapper
from orchestrator.agent.target import Hold, Target, resolve
from orchestrator.agent.target import patience_s as patience
from orchestrator.agent.tracker import Tracker
from orchestrator.errors import BeamwayError
from orchestrator.jobs import ALIVE, Job, JobState, Refused, Reservation, Scheduler, SchedulerSilent
from orchestrator.model import FailureClass, Order, Outcome, Placing, Resources, StageKind
from orchestrator.outside import effect
from orchestrator.protocol import SiteView
from orchestrator.schedulers import outlook

if TYPE_CHECKING:
    from sites.schema import SiteProfile

LOOK_S = 1.0  # how often held orders and reservations are looked at
TELL_S = 2.0  # how often it is told what waits
START_S = 10.0  # a reservation whose work has not begun so soon is not full yet
FULL_S = 300.0  # a reservation that was full is not tried again for so long
WARM_AHEAD_S = 600.0  # a reservation's pilot is submitted so long before it opens

log = structlog.get_logger()

Arrive = Callable[[str, Outcome], None]


class Cluster:
    """Used from the agent's thread, but for what is said otherwise."""

    def __init__(
        self,
        profile: SiteProfile,
        scheduler: Scheduler,
        kernel: DataFlowKernel,
        *,
        home: Path,
        directory: Path,
        environment: dict[str, str],
        arrive: Arrive,
        told: batch.Told,
    ) -> None:
        self._profile, self._scheduler, self._kernel = profile, scheduler, kernel
        self._map = [(pair.here, pair.there) for pair in profile.paths.map]
        self._arrive: Arrive = lambda token, outcome: arrive(token, folders.outcome(outcome, self._map))
        self._told = told
        self._tracker = Tracker(scheduler, poll_s=profile.scheduler.poll_s)
        self._tracker.wants_reservations = bool(profile.reservations)
        around = surroundings.of(profile, str(directory / "slots"))
        self._around = codec.dumps(around)
        variables = {**environment, **profile.environment.variables}
        self.prefix = f"bwp-{hashlib.sha256(f'{home}:{profile.name}'.encode()).hexdigest()[:10]}-"
        self._batch = batch.BatchExecutor(
            scheduler,
            self._tracker,
            around,
            init=batch.init_lines(profile.environment.modules, profile.environment.worker_init),
            environment=variables,
            told=told,
            down_after_s=profile.scheduler.down_after_s,
            exclusive=profile.execution.exclusive,
            options=tuple(profile.scheduler.options),
            silent_s=profile.execution.silent_s,
        )
        kernel.add_executors([self._batch])
        self._pilots = pilots.Pilots(
            profile,
            kernel,
            scheduler,
            self._tracker,
            around,
            directory=directory,
            prefix=self.prefix,
            environment=variables,
            give_up=self._give_up,
            others_wait=lambda: {reservation for _, _, reservation in self._batch.waiting()},
        )
        self._held: dict[str, tuple[Order, float, Hold]] = {}  # token -> order, since, why
        self._gone_since: dict[str, float] = {}  # reservation -> first missed
        self._full_until: dict[str, float] = {}  # reservation -> not to be tried before
        self._in_pilot: dict[str, tuple[pilots.Pilot, Order]] = {}
        self._given_up: dict[str, Outcome] = {}
        self._looked_at = self._told_at = 0.0
        self._apps: dict[str, Callable[..., Future[str]]] = {}
        self._found = self._pilots.take_over()
        if not self._pilots.all():
            wrapper.forget_slots(directory / "slots")
        self._attached = {b.job_id for p in self._pilots.all() for b in p.provider.blocks.values()}
        self._tracker.start()
        threading.Thread(target=self._clear_left_over, name="left-over", daemon=True).start()

    def _clear_left_over(self) -> None:
        """End the pilot jobs of an earlier agent that this one has not gone on with."""
        own = self._pilots.prefix
        while True:
            try:
                jobs = self._scheduler.mine(self.prefix)
                left = [j.id for j in jobs if j.id not in self._attached and not j.token.startswith(own)]
                if left:
                    with effect("block.cancel"):
                        self._scheduler.cancel(left)
                    log.warning("pilot.left_over_ended", jobs=left)
                return
            except SchedulerSilent:
                time.sleep(batch.SILENT_RETRY_S)
            except BeamwayError as error:
                log.error("pilot.left_over", reason=error.sentence)
                return

    # ---- orders

    def begin(self, order: Order) -> None:
        order = folders.order(order, self._map)
        if order.placing.reservation:
            self._tracker.ask_reservations()
        paths = output.Paths(order)
        if order.adopt or claim.known(paths) or os.path.exists(paths.order):
            order = replace(order, adopt=True)
            if self._in_attached(order):
                return
            target = batch.sent_to(paths.order)
            if target is not None:  # its job was about to be submitted, or was: whatever the reservations say now
                self._to_batch(order, target)
                return
            order, known = claim.adopt_call(order, paths)
            if known is not None:
                self._arrive(order.token, known)
                return
        self._place(order, time.time())

    def _in_attached(self, order: Order) -> bool:
        """Was it with a pilot that this agent goes on with? Then it runs there still, or has ended."""
        if order.token not in self._found:
            return False
        pilot, task = self._found.pop(order.token)
        self._in_pilot[order.token] = (pilot, order)
        task.future.add_done_callback(partial(self._from_pilot, pilot, order.token, time.time()))
        return True

    def has_found_running(self) -> bool:
        """Does anything run that an earlier agent began, and that nobody has asked this one about yet?"""
        return any(not task.future.done() for _, task in self._found.values())

    def _place(self, order: Order, since: float) -> None:
        now = time.time()
        name = order.placing.reservation
        there = self._tracker.reservations
        if there is not None and name and name not in there and self._tracker.reservations_at < since:
            there = None  # it may have been made since they were looked at
            self._tracker.ask_reservations()
        if there is not None and name and name not in there:
            self._gone_since.setdefault(name, now)
        else:
            self._gone_since.pop(name, None)
        full = [r for r, until in self._full_until.items() if now < until]
        found = resolve(order, self._profile, there, now=now, gone_since=self._gone_since.get(name, 0.0), full=full)
        if isinstance(found, Hold):
            self._held[order.token] = (order, since, found)
            self._told(order.token, since, found.sentence)
        elif isinstance(found, Outcome):
            self._arrive(order.token, found)
        elif found.mode == "batch":
            self._to_batch(order, found)
        else:
            self._to_pilot(order, found)

    def _to_batch(self, order: Order, target: Target) -> None:
        future = self._batch.submit(None, {}, order, target)
        future.add_done_callback(lambda f: self._arrive(order.token, f.result()))

    def _to_pilot(self, order: Order, target: Target) -> None:
        try:
            pilot = self._pilots.of(target)
        except Refused as error:
            self._arrive(order.token, Outcome(FailureClass.USER, error.sentence))
            return
        if order.adopt:
            jobscript.forbid(output.Paths(order).job)  # an agent that had it before and wakes might submit one
        self._pilots.add(pilot, order.token)
        self._in_pilot[order.token] = (pilot, order)
        app = self._apps.get(pilot.label)
        if app is None:
            app = python_app(wrapper.run, data_flow_kernel=self._kernel, executors=[pilot.label])
            self._apps[pilot.label] = app
        more: dict[str, Any] = {}
        if pilot.target.shape.nodes > 1:
            ranks = order.resources.ranks_per_node
            more["parsl_resource_specification"] = {"num_nodes": order.resources.nodes, "ranks_per_node": ranks}
        future = app(codec.dumps(order), self._around, **more)
        future.add_done_callback(partial(self._from_pilot, pilot, order.token, time.time()))

    def _from_pilot(self, pilot: pilots.Pilot, token: str, since: float, future: Future[str]) -> None:
        """In Parsl's thread."""
        pilot.tokens.pop(token, None)
        pilot.begun.discard(token)
        error = future.exception()
        if error is None:
            outcome = codec.loads(future.result(), Outcome)
        else:
            sentence = f"the worker was lost: {type(error).__name__}: {error}"
            outcome = pilots.cause(pilot, Outcome(FailureClass.LOST, sentence, ended_at=time.time()), since)
        self._arrive(token, outcome)

    def _give_up(self, token: str, outcome: Outcome) -> None:
        """In the thread of the blocks: no worker will come for this one."""
        self._given_up[token] = outcome

    def forget(self, token: str) -> None:
        """Its end has been reported."""
        self._in_pilot.pop(token, None)

    def begun(self, token: str) -> None:
        """A worker was seen to begin it."""
        if token in self._in_pilot:
            self._in_pilot[token][0].begun.add(token)

    def end(self, token: str) -> bool:
        """Ask for the end of this attempt, whose mark is set already; True when something will come back of it."""
        if self._held.pop(token, None) is not None:
            return False
        if self._batch.end(token):
            return True
        if token not in self._in_pilot:
            return False
        pilot, _ = self._in_pilot[token]
        if token in pilot.begun:
            return True
        pilot.tokens.pop(token, None)  # no block is wanted for it any more
        return False

    def end_unknown(self, token: str) -> None:
        """End whatever an attempt has that this agent has not begun; it arrives when there is nothing."""
        if token in self._found:
            _, task = self._found.pop(token)
            output.touch(task.mark)
            ended = Outcome(FailureClass.CANCELLED, "cancelled")
            task.future.add_done_callback(lambda _: self._arrive(token, ended))
            return

        def search() -> None:
            while True:
                try:
                    found = [j.id for j in self._scheduler.find(batch.PREFIX + token) if j.state in ALIVE]
                    if not found:
                        break
                    with effect("job.cancel"):
                        self._scheduler.cancel(found)
                    time.sleep(LOOK_S)
                except BeamwayError as error:
                    log.warning("job.end_unknown", token=token, reason=error.sentence)
                    time.sleep(batch.SILENT_RETRY_S)
            self._arrive(token, Outcome(FailureClass.CANCELLED, "cancelled"))

        threading.Thread(target=search, daemon=True).start()

    def in_batch(self, token: str) -> Job | None:
        """The scheduler's last word on the job of an attempt that has one of its own."""
        return self._batch.of(token)[1]

    # ---- from time to time

    def look(self) -> None:
        """Held orders, warm reservations, and what the waiting ones wait for."""
        self._pilots.beat()
        for token in list(self._given_up):
            outcome = self._given_up.pop(token)
            if token in self._in_pilot:
                pilot, order = self._in_pilot[token]
                pilot.tokens.pop(token, None)
                output.mark(output.Paths(order))  # a worker that comes late leaves it alone
                self._arrive(token, outcome)
        now = time.time()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        for token, (order, since, hold) in list(self._held.items()):
            if now >= hold.until or self._tracker.reservations is not None:
                del self._held[token]
                self._place(order, since)
        self._leave_reservations(now)
        self._warm(now)
        if now - self._told_at >= TELL_S:
            self._told_at = now
            self._tell()

    def _leave_reservations(self, now: float) -> None:
        """What waits in a reservation that is gone, or has been full for too long, is taken back from its queue."""
        there = self._tracker.reservations
        if there is None:
            return
        patience_s = patience(self._profile)
        if patience_s is not None:  # a free node is found in the scheduler's own time
            patience_s = max(patience_s, START_S + 2 * self._profile.scheduler.poll_s)
        for token, since, name in self._batch.waiting():
            if why := self._lost(name, there, now - since, patience_s, now):
                self._batch.recall(token, why)
        for pilot in self._pilots.all():
            name = pilot.target.reservation
            begun = any(b.running for b in pilot.blocks)
            since = min((pilot.tokens[t] for t in list(pilot.tokens)), default=now)
            if not begun and (why := self._lost(name, there, now - since, patience_s, now)):
                self._pilots.leave(pilot, why)

    def _lost(
        self, name: str, there: dict[str, Reservation], waited_s: float, patience_s: float | None, now: float
    ) -> str:
        if not name:
            return ""
        if name not in there:
            return f"reservation {name!r} is gone"
        open_s = now - there[name].from_at
        if patience_s is None or not there[name].active or min(waited_s, open_s) <= patience_s:
            return ""
        self._full_until[name] = now + FULL_S
        return f"reservation {name!r} had no room in {patience_s:g} s"

    def _warm(self, now: float) -> None:
        """Start a pilot of whole-node workers as a reservation of the profile opens."""
        if self._profile.execution.mode != "pilot":
            return
        for known in self._profile.reservations:
            seen = (self._tracker.reservations or {}).get(known.name)
            if not known.warm or seen is None or not (seen.from_at - WARM_AHEAD_S <= now):
                continue
            if seen.until_at and now > seen.until_at - 2 * batch.WARNING_S:
                continue
            node = self._profile.node_of(self._profile.queue(known.queue))
            order = Order(
                "warm",
                StageKind.KERNEL,
                "",
                resources=Resources(cores_per_rank=max(1, node.cores), gpus_per_rank=node.gpus),
                placing=Placing(reservation=known.name, queue=known.queue, account=known.account),
            )
            target = resolve(order, self._profile, self._tracker.reservations, now=now)
            if isinstance(target, Target) and target.reservation:
                with contextlib.suppress(Refused):
                    self._pilots.warm(target, seen.until_at or now + 3600.0)

    def _tell(self) -> None:
        silent = ""
        if self._tracker.silent_since:
            at = time.strftime("%H:%M:%S", time.localtime(self._tracker.silent_since))
            silent = f"the scheduler of {self._profile.name} has given no answer since {at}; what runs there goes on"
        for pilot in self._pilots.all():
            waits = silent or _waits(pilot)
            if waits:
                for token, since in list(pilot.tokens.items()):
                    if token not in pilot.begun:
                        self._told(token, since, waits)
        if silent:
            for token, since, _ in self._batch.waiting():
                self._told(token, since, silent)

    def trouble(self) -> str:
        """A sentence when an executor cannot go on, and the agent should start anew."""
        return self._pilots.trouble()

    # ---- placement

    def view(self, resources: Resources, queues: tuple[str, ...]) -> SiteView:
        """How the site looks for work of this size. Asks the scheduler: not for the agent's own thread."""
        warm = {w for p in self._pilots.all() if p.free > 0 for w in (p.target.queue, p.target.reservation) if w}
        since = self._tracker.silent_since
        return outlook.ask(self._scheduler, self._profile, resources, queues, warm=warm, silent_since=since)

    def leave(self) -> None:
        """Before this agent ends without more ado: what the next one cannot go on with is ended."""
        self._pilots.drop_lost()

    def close(self) -> None:
        """Pilot jobs are ended; batch jobs go on, to be found again by the next agent."""
        self._pilots.close()
        self._tracker.close()


def _waits(pilot: pilots.Pilot) -> str:
    """What the tasks of a pilot wait for, when that is its jobs and not merely a free worker."""
    blocks = pilot.blocks
    if any(b.running and b.connected for b in blocks):
        return ""
    where = f"reservation {pilot.target.reservation!r}" if pilot.target.reservation else f"queue {pilot.target.queue!r}"
    note = f" ({pilot.target.note})" if pilot.target.note else ""
    for block in blocks:
        if block.last is None:
            return f"job {block.job_id} for its workers was submitted to {where}{note}"
        if block.last.state is JobState.RUNNING:
            return f"job {block.job_id} runs; its workers are starting{note}"
        reason = block.last.reason or f"is {block.last.state.value}"
        return f"job {block.job_id} for its workers in {where} {reason}{note}"
    return f"a job for its workers is being submitted to {where}{note}"
